use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Kind;
use super::path::{Place, place};
use super::store::{Store, merge};

/// A part at a time; it ends when its sender does.
pub(super) struct Parts(mpsc::Receiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(context);
        next.map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

type Query = BTreeMap<String, String>;

pub(super) async fn answer(
    store: Arc<Mutex<Store>>,
    request: Request<Incoming>,
) -> Result<Response<Parts>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let line = format!("{} {}", head.method, head.uri);
    let refused = {
        let mut store = store.lock();
        store.requests.push(line.clone());
        let refusals = store.refusals.iter();
        let found = refusals.clone().find(|(start, _)| line.starts_with(start));
        let found = found.map(|(_, code)| *code);
        store.changes.send_modify(|(changes, _)| *changes += 1);
        found
    };
    if let Some(code) = refused {
        return Ok(failure(code, "Refused"));
    }
    let query = query(head.uri.query().unwrap_or_default());
    Ok(match place(head.uri.path()) {
        None => failure(404, "NotFound"),
        Some(Place::Groups) if head.uri.path() == "/api" => {
            whole(200, &json!({"kind": "APIVersions", "versions": ["v1"]}))
        }
        Some(Place::Groups) => whole(200, &groups()),
        Some(Place::Resources(group_version)) => whole(200, &resources(&group_version)),
        Some(Place::Collection(kind)) => collection(&store, &head.method, (kind, &query), body),
        Some(Place::Object(kind, name)) => {
            object(&mut store.lock(), &head.method, (kind, &name), &body)
        }
        Some(Place::Part(kind, name, part)) if part == "log" => log(&store.lock(), kind, &name),
        Some(Place::Part(kind, name, _)) => {
            object(&mut store.lock(), &head.method, (kind, &name), &body)
        }
    })
}

fn collection(
    store: &Arc<Mutex<Store>>,
    method: &Method,
    (kind, query): (Kind, &Query),
    body: Value,
) -> Response<Parts> {
    let selector = query.get("labelSelector").cloned().unwrap_or_default();
    if method == Method::POST {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            return failure(422, "Invalid");
        }
        if store.lock().get(kind, name).is_some() {
            return failure(409, "AlreadyExists");
        }
        return whole(201, &store.lock().apply(kind, body));
    }
    if query
        .get("watch")
        .is_some_and(|watch| watch == "true" || watch == "1")
    {
        let version = query
            .get("resourceVersion")
            .and_then(|text| text.parse().ok());
        return watch(store, kind, selector, version.unwrap_or(0));
    }
    let store = store.lock();
    let found = store.list(kind, &selector);
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let start = number("continue").unwrap_or(0);
    let end = number("limit").map_or(found.len(), |limit| (start + limit).min(found.len()));
    let more = if end < found.len() {
        end.to_string()
    } else {
        String::new()
    };
    let (group_version, _, word, _) = kind.words();
    whole(
        200,
        &json!({
            "apiVersion": group_version,
            "kind": format!("{word}List"),
            "metadata": {"resourceVersion": store.version().to_string(), "continue": more},
            "items": found[start.min(end)..end],
        }),
    )
}

fn object(
    store: &mut Store,
    method: &Method,
    (kind, name): (Kind, &str),
    body: &Value,
) -> Response<Parts> {
    let Some(mut known) = store.get(kind, name) else {
        return failure(404, "NotFound");
    };
    match method.as_str() {
        "GET" => whole(200, &known),
        "DELETE" => {
            let foreground = body["propagationPolicy"] == "Foreground";
            whole(
                200,
                &store.delete(kind, name, foreground).unwrap_or_default(),
            )
        }
        "PATCH" => {
            merge(&mut known, body);
            whole(200, &store.apply(kind, known))
        }
        "PUT" => {
            let version = &body["metadata"]["resourceVersion"];
            if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
                return failure(409, "Conflict");
            }
            whole(200, &store.apply(kind, body.clone()))
        }
        _ => failure(405, "MethodNotAllowed"),
    }
}

/// A pod's output is what its annotation says.
fn log(store: &Store, kind: Kind, name: &str) -> Response<Parts> {
    let Some(pod) = store.get(kind, name) else {
        return failure(404, "NotFound");
    };
    match pod["metadata"]["annotations"]["prints"].as_str() {
        Some(text) => parts(200, Bytes::from(text.to_owned())),
        None => failure(400, "ContainerCreating"),
    }
}

fn watch(
    store: &Arc<Mutex<Store>>,
    kind: Kind,
    selector: String,
    mut version: u64,
) -> Response<Parts> {
    let (send, receive) = mpsc::channel(16);
    let mut changes = store.lock().changes.subscribe();
    let (_, cuts) = *changes.borrow_and_update();
    let store = Arc::clone(store);
    if store.lock().since(version, kind, &selector).is_none() {
        let expired = json!({"type": "ERROR", "object": status(410, "Expired")});
        return whole(200, &expired);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's server; it ends with the test's runtime"
    )]
    tokio::spawn(async move {
        loop {
            let Some(news) = store.lock().since(version, kind, &selector) else {
                return;
            };
            for one in news {
                version = one.version;
                let line = json!({"type": one.how, "object": one.object}).to_string() + "\n";
                if send.send(Bytes::from(line)).await.is_err() {
                    return;
                }
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                () = send.closed() => return,
            };
            if changed.is_err() || changes.borrow_and_update().1 != cuts {
                return;
            }
        }
    });
    Response::new(Parts(receive))
}

fn groups() -> Value {
    let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.words().0).collect();
    names.sort_unstable();
    names.dedup();
    let groups: Vec<Value> = names
        .into_iter()
        .filter_map(|group_version| {
            let (group, version) = group_version.split_once('/')?;
            let version = json!({"groupVersion": group_version, "version": version});
            Some(json!({"name": group, "versions": [version], "preferredVersion": version}))
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(group_version: &str) -> Value {
    let kinds = Kind::ALL
        .iter()
        .filter(|kind| kind.words().0 == group_version);
    let kinds: Vec<Value> = kinds
        .map(|kind| {
            let (_, plural, word, namespaced) = kind.words();
            json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": word,
                   "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": kinds})
}

fn query(text: &str) -> Query {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| {
            let value = value.replace("%3D", "=").replace("%2C", ",");
            (name.to_owned(), value.replace("%2F", "/"))
        })
        .collect()
}

fn failure(code: u16, reason: &str) -> Response<Parts> {
    whole(code, &status(code, reason))
}

fn status(code: u16, reason: &str) -> Value {
    let message = format!("{reason}, says the test");
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

fn whole(code: u16, document: &Value) -> Response<Parts> {
    let mut response = parts(code, Bytes::from(document.to_string()));
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

fn parts(code: u16, body: Bytes) -> Response<Parts> {
    let (send, receive) = mpsc::channel(1);
    send.try_send(body).expect("there is room for one");
    let mut response = Response::new(Parts(receive));
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a status");
    response
}
