//! The commands' way to a running server.

mod sse;

use std::future::Future;
use std::time::Duration;

use base::Tasks;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::cli::ServerArgs;
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use discovery::http::{Endpoint, HttpError};

pub(crate) use sse::EventReader;

/// The headers and the whole body of a good answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Outcome<Value> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::failed(format!("the server's answer is not JSON: {error}"))
                .hint("check that --url names a kapok server")
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    authorization: Option<String>,
    timeout: Duration,
    /// What the user can change when nothing answers.
    knob: &'static str,
    tasks: Tasks,
}

impl Client {
    /// To the public port.
    pub(crate) fn public(args: &ServerArgs, environment: &Environment) -> Outcome<Self> {
        let url = args.url.as_ref().or(environment.url.as_ref());
        let url = url.map_or("http://127.0.0.1:8000", String::as_str);
        Self::new(url, args, environment, "--url")
    }

    /// To the admin port.
    pub(crate) fn admin(args: &ServerArgs, environment: &Environment) -> Outcome<Self> {
        let url = args.admin_url.as_ref().or(environment.admin_url.as_ref());
        let url = url.map_or("http://127.0.0.1:8080", String::as_str);
        Self::new(url, args, environment, "--admin-url")
    }

    fn new(
        url: &str,
        args: &ServerArgs,
        environment: &Environment,
        knob: &'static str,
    ) -> Outcome<Self> {
        let key = args.api_key.as_ref().or(environment.api_key.as_ref());
        Ok(Self {
            endpoint: Endpoint::parse(url).map_err(|error| {
                Failure::usage(error.to_string()).hint(format!("{knob} http://127.0.0.1:8000"))
            })?,
            authorization: key.map(|key| format!("Bearer {key}")),
            timeout: Duration::from_secs(args.timeout),
            knob,
            tasks: Tasks::new(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Outcome<Reply> {
        self.exchange(Method::GET, path, HeaderMap::new(), Bytes::new())
            .await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Outcome<Reply> {
        let body = Bytes::from(body.to_string());
        self.exchange(Method::POST, path, json_headers(), body)
            .await
    }

    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Outcome<Reply> {
        let whole = async {
            let response = self.send(method, path, headers, body).await?;
            self.collect(response).await
        };
        self.in_time(whole).await
    }

    /// Sends JSON and hands back the body while it is still arriving; the timeout covers the head only.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Outcome<Response<Incoming>> {
        let body = Bytes::from(body.to_string());
        let response = self
            .in_time(self.send(Method::POST, path, json_headers(), body))
            .await?;
        if response.status().is_success() {
            return Ok(response);
        }
        match self.in_time(self.collect(response)).await {
            Err(failure) => Err(failure),
            Ok(_) => Err(Failure::failed("the server refused the request")),
        }
    }

    /// A document, or none where there is nothing at the path.
    pub(crate) async fn find(&self, path: &str) -> Outcome<Option<Value>> {
        let asked = self.send(Method::GET, path, HeaderMap::new(), Bytes::new());
        let response = self.in_time(asked).await?;
        if response.status() == http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.in_time(self.collect(response)).await?.json().map(Some)
    }

    /// A body that is still arriving; none where there is nothing at the path.
    pub(crate) async fn open(&self, path: &str) -> Outcome<Option<Incoming>> {
        let asked = self.send(Method::GET, path, HeaderMap::new(), Bytes::new());
        let response = self.in_time(asked).await?;
        match response.status() {
            status if status.is_success() => Ok(Some(response.into_body())),
            http::StatusCode::NOT_FOUND => Ok(None),
            _ => self
                .in_time(self.collect(response))
                .await
                .map(|_reply| None),
        }
    }

    /// The next piece of a body that may be silent for as long as it likes.
    pub(crate) async fn piece(&self, body: &mut Incoming) -> Outcome<Option<Bytes>> {
        loop {
            match body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let error = anyhow::Error::new(error).context("the answer was cut off");
                    return Err(Failure::from(error));
                }
            }
        }
    }

    /// The next piece of a body, with the client's timeout as the longest silence.
    pub(crate) async fn next_chunk(&self, body: &mut Incoming) -> Outcome<Option<Bytes>> {
        self.in_time(self.piece(body)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Outcome<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut request = request
            .body(body)
            .map_err(|error| Failure::usage(format!("`{path}` cannot be asked for: {error}")))?;
        request.headers_mut().extend(headers);
        self.endpoint
            .send(&self.tasks, request)
            .await
            .map_err(|error| self.explain(error))
    }

    async fn collect(&self, response: Response<Incoming>) -> Outcome<Reply> {
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| anyhow::Error::new(error).context("the answer was cut off"))?
            .to_bytes();
        if head.status.is_success() {
            return Ok(Reply {
                headers: head.headers,
                body,
            });
        }
        Err(refusal(head.status.as_u16(), &head.headers, &body))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::failed(format!(
                "{} did not answer within {} s",
                self.endpoint.address(),
                self.timeout.as_secs()
            ))
            .hint("raise --timeout, or see what it is doing: kapok models list")),
        }
    }

    fn explain(&self, error: HttpError) -> Failure {
        let text = base::chain(&error);
        match error {
            HttpError::Connect { .. } => Failure::unreachable(text).hint(format!(
                "start a server with `kapok up`, or name one with {}",
                self.knob
            )),
            HttpError::Url { .. } | HttpError::Request(_) => Failure::usage(text),
            HttpError::Exchange { .. } | HttpError::Tls { .. } => Failure::failed(text)
                .hint("see the server's log; `kapok models list` shows whether it is well"),
        }
    }
}

/// Runs a command's asynchronous part on one thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| anyhow::Error::new(error).context("the runtime cannot start"))?
        .block_on(work)
}

fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    headers
}

/// A refusal in the server's own words, whichever protocol's shape they come in.
fn refusal(status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &document["error"];
    let message = error.as_str().or_else(|| error["message"].as_str());
    let failure = match message {
        Some(message) => Failure::failed(format!("{message} (status {status})")),
        None => Failure::failed(format!("the server answered with status {status}")),
    };
    let id = headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok());
    match (status, id) {
        (401 | 403, _) => failure.hint("give a key with --api-key or KAPOK_API_KEY"),
        // Jobs are not found in words that say where to look.
        (404, _) if message.is_some_and(|message| message.contains("`kapok jobs`")) => failure,
        (404, _) => failure.hint("kapok models list"),
        (429 | 503, _) => {
            failure.hint("it is busy or not ready yet: try again, or see `kapok models list`")
        }
        (_, Some(id)) => failure.hint(format!("kapok explain {id}")),
        (_, None) => failure,
    }
}
