//! Requests for a target that is on its way.

use serde_json::json;

use super::upstream::{FakeUpstream, IDLE_MS, json as answer};
use super::{Served, eventually};
use crate::Readiness;
use crate::snapshot::tests::{resource, upstream};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = "{\"model\":\"m\"}";

fn managed(fake: &FakeUpstream) -> protocol::resource::Resource {
    let process = json!({"command": ["server"]});
    let fields =
        json!({"url": fake.url(), "models": ["m"], "idleTimeoutMs": IDLE_MS, "process": process});
    upstream("up", fields)
}

fn route(hold_ms: u64) -> protocol::resource::Resource {
    let spec = json!({"models": ["m"], "targets": [{"upstream": "up"}], "holdMs": hold_ms});
    let spec = serde_json::from_value(spec).expect("a route's fields");
    resource("r", protocol::resource::Spec::Route(spec))
}

fn held(served: &Served) -> i64 {
    served.gateway.shared().metrics.held().get()
}

#[tokio::test]
async fn a_request_waits_for_an_upstream_that_starts() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer("{}")]]).await;
    served.gateway.publish(&[managed(&fake)]).expect("good");
    let mut client = served.client().await;
    client.send("POST", PATH, "", BODY.as_bytes()).await;
    eventually("it waits", || held(&served) == 1).await;
    served
        .gateway
        .upstream_is("up", Readiness::Loading("nearly"));
    assert!(fake.requests().is_empty());
    served.gateway.upstream_is("up", Readiness::Ready);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(held(&served), 0);
}

#[tokio::test]
async fn who_leaves_the_line_frees_the_place() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer("{}")]]).await;
    served.gateway.publish(&[managed(&fake)]).expect("good");
    let mut client = served.client().await;
    client.send("POST", PATH, "", BODY.as_bytes()).await;
    eventually("it waits", || held(&served) == 1).await;
    drop(client);
    eventually("it has left", || held(&served) == 0).await;
}

#[tokio::test]
async fn another_configuration_lets_who_waits_go() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer("{\"by\":1}")]]).await;
    let template =
        json!({"url": "http://llm.test:1", "models": ["m"], "discovery": {"static": ["a:1"]}});
    let template = upstream("pool", template);
    served
        .gateway
        .publish(std::slice::from_ref(&template))
        .expect("a pool without a server");
    let mut client = served.client().await;
    client.send("POST", PATH, "", BODY.as_bytes()).await;
    eventually("it waits", || held(&served) == 1).await;
    let member =
        json!({"url": fake.url(), "models": ["m"], "pool": "pool", "idleTimeoutMs": IDLE_MS});
    served
        .gateway
        .publish(&[template, upstream("pool/a:1", member)])
        .expect("a server");
    assert_eq!(client.answer().await.text(), "{\"by\":1}");
}

#[tokio::test]
async fn the_wait_has_an_end_and_may_be_none() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer("{}")]]).await;
    for (hold_ms, state) in [
        (0, Readiness::Loading("nearly")),
        (1, Readiness::Loading("nearly")),
        (1, Readiness::Down("gone")),
    ] {
        served
            .gateway
            .publish(&[managed(&fake), route(hold_ms)])
            .expect("good");
        served.gateway.upstream_is("up", state);
        let got = served.post(PATH, BODY).await;
        assert_eq!(got.status, 503, "{hold_ms}");
        assert!(got.text().contains("`up` is not ready"), "{}", got.text());
    }
    // What is down and not on its way is not waited for, unless the route says so.
    served.gateway.publish(&[managed(&fake)]).expect("good");
    served.gateway.upstream_is("up", Readiness::Down("gone"));
    assert_eq!(served.post(PATH, BODY).await.status, 503);
    assert!(fake.requests().is_empty());
}
