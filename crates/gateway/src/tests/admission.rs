//! Limits, places, lines, classes, and tokens that are charged.

mod tokens;

use protocol::resource::{KeySpec, Resource, RouteSpec, Spec};
use serde_json::{Value, json as value};

use super::client::{Answer, Client};
use super::grpc::{Channel, envelope, infer};
use super::upstream::{FakeUpstream, Step, json};
use super::{Served, eventually};
use crate::snapshot::tests::{resource, upstream};

const CHAT: &str = "/v1/chat/completions";
const KEY: &str = "authorization: Bearer sesame\r\n";

fn key(fields: Value) -> Resource {
    let mut spec = value!({
        // printf %s sesame | sha256sum
        "sha256": "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"
    });
    merge(&mut spec, fields);
    let spec: KeySpec = serde_json::from_value(spec).expect("a key's fields");
    resource("team", Spec::Key(spec))
}

fn route(model: &str, target: &str, fields: Value) -> Resource {
    let mut spec = value!({"models": [model], "targets": [{"upstream": target}]});
    merge(&mut spec, fields);
    let spec: RouteSpec = serde_json::from_value(spec).expect("a route's fields");
    resource("way", Spec::Route(spec))
}

fn merge(spec: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else {
        return;
    };
    spec.as_object_mut().expect("an object").extend(fields);
}

async fn serve(
    scripts: Vec<Vec<Step>>,
    fields: Value,
    mut resources: Vec<Resource>,
) -> (Served, FakeUpstream) {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, scripts).await;
    let mut spec = value!({"url": fake.url(), "models": ["m"]});
    merge(&mut spec, fields);
    resources.push(upstream("up", spec));
    served.gateway.publish(&resources).expect("good resources");
    (served, fake)
}

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer.header(header).expect(header);
    text.parse().expect("a number")
}

async fn embed(client: &mut Client) -> Answer {
    let body = br#"{"model":"vectors","input":["a"]}"#;
    client.ask("POST", "/v1/embeddings", KEY, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_requests_from_64_connections_a_hundred_pass() {
    let served = Served::start(&[key(value!({"limits": {"requests": 100}}))]);
    let mut callers = Vec::new();
    for number in 0..64 {
        let mut client = served.client().await;
        callers.push(async move {
            let mut passed = 0;
            for _ in 0..(if number < 40 { 16 } else { 15 }) {
                let answer = embed(&mut client).await;
                match answer.status {
                    200 => passed += 1,
                    429 => {
                        assert!(number_of_seconds(&answer) >= 1);
                        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
                        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
                        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            passed
        });
    }
    let passed: Vec<u32> = join_all(callers).await;
    assert_eq!(passed.iter().sum::<u32>(), 100);
}

fn number_of_seconds(answer: &Answer) -> u64 {
    number(answer, "retry-after")
}

async fn join_all<T: Send + 'static>(
    work: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let mut set = tokio::task::JoinSet::new();
    for one in work {
        set.spawn(one);
    }
    set.join_all().await
}

#[tokio::test]
async fn each_protocol_refuses_in_its_own_words() {
    let served = Served::start(&[key(value!({"limits": {"requests": 2}}))]);
    let mut client = served.client().await;
    let first = embed(&mut client).await;
    assert_eq!(first.status, 200);
    assert_eq!(number(&first, "x-ratelimit-limit-requests"), 2);
    assert_eq!(number(&first, "x-ratelimit-remaining-requests"), 1);
    assert!(
        first
            .header("x-ratelimit-reset-requests")
            .expect("a time")
            .ends_with('s')
    );
    assert_eq!(embed(&mut client).await.status, 200);
    let body = br#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}"#;
    let refused = client.ask("POST", "/v2/models/echo/infer", KEY, body).await;
    assert_eq!(refused.status, 429);
    let message = refused.json()["error"]
        .as_str()
        .expect("OIP's shape")
        .to_owned();
    assert!(
        message.starts_with("rate limit reached for key `team`: 2 requests in 60 s"),
        "{message}"
    );
    // What a model is costs nothing.
    let about = client.ask("GET", "/v2/models/echo", KEY, b"").await;
    assert_eq!(about.status, 200);
    let mut channel = Channel::open(&served, served.public).await;
    let with_key = [("authorization", "Bearer sesame")];
    let message = envelope(&infer("echo"));
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let called = channel.raw(path, &with_key, message.clone()).await;
    assert_eq!(called.status, "8", "RESOURCE_EXHAUSTED");
    assert!(
        called.text.starts_with("rate limit reached for key `team`"),
        "{}",
        called.text
    );
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let called = channel.raw(path, &with_key, message).await;
    assert_eq!(called.status, "0", "only its request is refused");
    let said = String::from_utf8_lossy(&called.data).into_owned();
    assert!(said.contains("rate limit reached for key `team`"), "{said}");
    let message = refused.json()["error"].clone();
    let message = message.as_str().expect("OIP's shape");
    let record = served.settled(refused.request_id()).await;
    assert_eq!(record.error.as_deref(), Some(message));
}

#[tokio::test]
async fn a_reload_changes_limits_and_forgives_nothing() {
    let served = Served::start(&[key(value!({"limits": {"requests": 2}}))]);
    let mut client = served.client().await;
    assert_eq!(embed(&mut client).await.status, 200);
    served
        .gateway
        .publish(&[key(value!({"limits": {"requests": 3}}))])
        .expect("good");
    let answer = embed(&mut client).await;
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 1);
    let bad = upstream("local", value!({"url": "http://127.0.0.1:1"}));
    let refused = served
        .gateway
        .publish(&[key(value!({"limits": {"requests": 99}})), bad]);
    assert!(refused.is_err());
    assert_eq!(embed(&mut client).await.status, 200);
    assert_eq!(
        embed(&mut client).await.status,
        429,
        "a refused snapshot changes no limit"
    );
    served.gateway.publish(&[key(value!({}))]).expect("good");
    let answer = embed(&mut client).await;
    assert_eq!(
        (answer.status, answer.header("x-ratelimit-limit-requests")),
        (200, None)
    );
}

#[tokio::test]
async fn a_key_opens_the_calls_of_its_scopes() {
    for (scopes, infers, lists, scrapes, orders, administers) in [
        (value!(["inference"]), 200, 403, 403, 403, 403),
        (value!(["models"]), 403, 200, 403, 403, 403),
        (value!(["metrics"]), 403, 403, 200, 403, 403),
        (value!(["orders", "inference"]), 200, 403, 403, 200, 403),
        (value!(["admin"]), 403, 403, 403, 403, 200),
        (Value::Null, 200, 200, 200, 200, 200),
    ] {
        let served = Served::start(&[key(value!({"scopes": scopes}))]);
        let mut client = served.client().await;
        assert_eq!(embed(&mut client).await.status, infers, "{scopes}");
        for (path, status) in [
            ("/v1/models", lists),
            ("/metrics", scrapes),
            ("/v2/logging", orders),
        ] {
            let got = client.ask("GET", path, KEY, b"").await;
            assert_eq!(got.status, status, "{path} with {scopes}: {}", got.text());
        }
        let mut admin = Client::connect(served.admin).await;
        let got = admin.ask("GET", "/admin/v1/requests", KEY, b"").await;
        assert_eq!(got.status, administers, "{scopes}");
    }
}

/// Waits for a word from the test, then answers.
fn held() -> Vec<Step> {
    vec![Step::Wait, json("{\"usage\":{\"total_tokens\":1}}")]
}

async fn begin(served: &Served, id: &str, headers: &str) -> Client {
    let mut client = served.client().await;
    let headers = format!("x-request-id: {id}\r\n{headers}");
    client
        .send("POST", CHAT, &headers, b"{\"model\":\"m\"}")
        .await;
    client
}

fn depth(served: &Served) -> usize {
    let text = served.gateway.shared().registry.encode();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("kapok_gateway_queue_depth{"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

#[tokio::test]
async fn a_full_upstream_is_waited_for_in_the_order_of_classes() {
    for fields in [value!({}), value!({"limits": {"maxInFlight": 1}})] {
        let on_route = fields.get("limits").is_some();
        let upstream = if on_route {
            value!({})
        } else {
            value!({"maxInFlight": 1})
        };
        let (served, fake) = serve(vec![held()], upstream, vec![route("m", "up", fields)]).await;
        let mut clients = vec![begin(&served, "first", "").await];
        eventually("the first is there", || fake.requests().len() == 1).await;
        for (number, class) in ["bulk", "interactive", "realtime", "nonsense"]
            .iter()
            .enumerate()
        {
            let header = format!("x-request-priority: {class}\r\n");
            clients.push(begin(&served, class, &header).await);
            eventually("it stands in line", || depth(&served) == number + 1).await;
        }
        for served_so_far in 1..=5 {
            eventually("the next is there", || {
                fake.requests().len() == served_so_far
            })
            .await;
            fake.proceed();
        }
        for client in &mut clients {
            assert_eq!(client.answer().await.status, 200);
        }
        let order: Vec<String> = fake
            .requests()
            .iter()
            .map(|request| id_of(request))
            .collect();
        assert_eq!(
            order,
            ["first", "realtime", "interactive", "nonsense", "bulk"]
        );
        let record = served.settled("bulk").await;
        assert!(
            record.reason.contains("; stood in line for "),
            "{}",
            record.reason
        );
        assert!(record.reason.ends_with("as `bulk`"), "{}", record.reason);
        assert!(super::booked(&record, telemetry::Stage::Queue) > 0.0);
        assert_eq!(depth(&served), 0);
    }
}

fn id_of(request: &str) -> String {
    let id = request
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    id.expect("an id").to_owned()
}

#[tokio::test]
async fn a_key_claims_no_class_above_its_own() {
    let (served, fake) = serve(
        vec![held()],
        value!({"maxInFlight": 1}),
        vec![key(value!({"priority": "bulk"}))],
    )
    .await;
    let mut clients = vec![begin(&served, "first", KEY).await];
    eventually("the first is there", || fake.requests().len() == 1).await;
    clients.push(
        begin(
            &served,
            "climber",
            &format!("{KEY}x-request-priority: realtime\r\n"),
        )
        .await,
    );
    eventually("it stands in line", || depth(&served) == 1).await;
    let text = served.gateway.shared().registry.encode();
    assert!(
        text.contains("kapok_gateway_queue_depth{class=\"bulk\"} 1"),
        "{text}"
    );
    fake.proceed();
    fake.proceed();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn who_cannot_wait_is_told_so() {
    let way = route("m", "up", value!({"queue": {"max": 1}}));
    let (served, fake) = serve(vec![held()], value!({"maxInFlight": 1}), vec![way]).await;
    let mut first = begin(&served, "first", "").await;
    eventually("the first is there", || fake.requests().len() == 1).await;
    let late = begin(&served, "late", "x-request-timeout-ms: 30\r\n")
        .await
        .answer()
        .await;
    assert_eq!(
        (late.status, &late.json()["error"]["code"]),
        (504, &value!("deadline_exceeded"))
    );
    let late = begin(&served, "silent", "x-stainless-read-timeout: 0.03\r\n")
        .await
        .answer()
        .await;
    assert_eq!(late.status, 504);
    let mut bulk = begin(&served, "bulk", "x-request-priority: bulk\r\n").await;
    eventually("it stands in line", || depth(&served) == 1).await;
    let full = begin(&served, "full", "x-request-priority: bulk\r\n")
        .await
        .answer()
        .await;
    assert_eq!(
        (full.status, &full.json()["error"]["code"]),
        (503, &value!("queue_full"))
    );
    assert_eq!(number_of_seconds(&full), 1);
    let mut urgent = begin(&served, "urgent", "x-request-priority: realtime\r\n").await;
    let displaced = bulk.answer().await;
    assert_eq!(
        (displaced.status, &displaced.json()["error"]["code"]),
        (503, &value!("queue_displaced"))
    );
    fake.proceed();
    fake.proceed();
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(urgent.answer().await.status, 200);
    assert_eq!(fake.requests().len(), 2, "who was turned away was not sent");
}

#[tokio::test]
async fn who_leaves_the_line_leaves_no_trace() {
    let (served, fake) = serve(vec![held()], value!({"maxInFlight": 1}), vec![]).await;
    let mut first = begin(&served, "first", "").await;
    eventually("the first is there", || fake.requests().len() == 1).await;
    let gone = begin(&served, "gone", "").await;
    eventually("it stands in line", || depth(&served) == 1).await;
    drop(gone);
    eventually("it is out of line", || depth(&served) == 0).await;
    let mut next = begin(&served, "next", "").await;
    eventually("it stands in line", || depth(&served) == 1).await;
    fake.proceed();
    fake.proceed();
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(next.answer().await.status, 200);
    assert_eq!(fake.requests().len(), 2);
    let record = served.settled("gone").await;
    assert_eq!(record.status, 499);
    assert!(super::booked(&record, telemetry::Stage::Queue) > 0.0);
}

#[tokio::test]
async fn another_upstream_with_room_is_asked_at_once_and_a_fallback_only_when_nobody_is_left() {
    let served = Served::start(&[]);
    let first = FakeUpstream::start(&served.tasks, vec![held()]).await;
    let second = FakeUpstream::start(&served.tasks, vec![held()]).await;
    let spec = |fake: &FakeUpstream| value!({"url": fake.url(), "models": [], "maxInFlight": 1});
    let way = value!({
        "models": ["m"],
        "targets": [{"upstream": "one"}],
        "fallback": [{"upstream": "two"}],
    });
    let way: RouteSpec = serde_json::from_value(way).expect("a route's fields");
    let resources = [
        upstream("one", spec(&first)),
        upstream("two", spec(&second)),
        resource("way", Spec::Route(way)),
    ];
    served.gateway.publish(&resources).expect("good resources");
    let mut clients = vec![begin(&served, "a", "").await];
    eventually("it is there", || first.requests().len() == 1).await;
    clients.push(begin(&served, "b", "").await);
    eventually("it waits, and does not fall back", || depth(&served) == 1).await;
    first.proceed();
    first.proceed();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!((first.requests().len(), second.requests().len()), (2, 0));

    let both = value!({"models": ["m"], "targets": [{"upstream": "one"}, {"upstream": "two"}]});
    let both: RouteSpec = serde_json::from_value(both).expect("a route's fields");
    let resources = [
        upstream("one", spec(&first)),
        upstream("two", spec(&second)),
        resource("way", Spec::Route(both)),
    ];
    served.gateway.publish(&resources).expect("good resources");
    let mut clients = vec![begin(&served, "c", "").await, begin(&served, "d", "").await];
    eventually("one each", || {
        first.requests().len() + second.requests().len() == 4
    })
    .await;
    assert_eq!(second.requests().len(), 1);
    clients.push(begin(&served, "e", "").await);
    eventually("it stands in both lines", || depth(&served) == 1).await;
    second.proceed();
    eventually("the first free place is taken", || {
        second.requests().len() == 2
    })
    .await;
    first.proceed();
    second.proceed();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn models_here_have_lines_too() {
    let way = route("slow", "local", value!({"limits": {"maxInFlight": 1}}));
    let served = Served::start(&[way]);
    let body = br#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}"#;
    let mut first = served.client().await;
    first.send("POST", "/v2/models/slow/infer", "", body).await;
    eventually("it is there", || served.asked() == 1).await;
    let headers = "x-request-timeout-ms: 30\r\n";
    let late = served
        .ask("POST", "/v2/models/slow/infer", headers, body)
        .await;
    assert_eq!(late.status, 504);
    assert!(
        late.json()["error"]
            .as_str()
            .expect("OIP's shape")
            .contains("stood in line")
    );
    assert_eq!(served.asked(), 1);
}
