//! What health checks find, and what follows from it.

use base::Tasks;
use serde_json::json as value;

use super::upstream::{FakeUpstream, Step, json, send};
use super::{Served, eventually};
use crate::snapshot::tests::upstream;

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "{\"model\":\"m\"}";

fn sick() -> Vec<Step> {
    vec![send("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")]
}

fn trouble(served: &Served, name: &str) -> String {
    let upstreams = served.gateway.upstreams();
    let found = upstreams.into_iter().find(|upstream| upstream.name == name);
    found.expect("an upstream").trouble
}

#[tokio::test]
async fn a_sick_upstream_is_passed_over_until_it_is_well() {
    let tasks = Tasks::new();
    let mut script = vec![sick(), sick()];
    // Well again after a while, and for good.
    script.push(vec![Step::Wait, json("{}")]);
    script.push(vec![json("{\"from\":\"a\"}")]);
    let ill = FakeUpstream::start(&tasks, script).await;
    let well = FakeUpstream::start(&tasks, vec![vec![json("{\"from\":\"b\"}")]]).await;
    let health =
        value!({"path": "/health", "intervalMs": 100, "timeoutMs": 20_000, "unhealthyAfter": 2});
    let served = Served::start(&[
        upstream(
            "a",
            value!({"url": ill.url(), "models": ["m"], "health": health}),
        ),
        upstream("b", value!({"url": well.url(), "models": ["m"]})),
    ]);
    eventually("it is found sick", || !trouble(&served, "a").is_empty()).await;
    assert!(
        trouble(&served, "a").contains("asked for /health: it answered 500"),
        "{}",
        trouble(&served, "a")
    );
    for _ in 0..4 {
        assert_eq!(served.post(CHAT, ASK).await.text(), "{\"from\":\"b\"}");
    }
    ill.proceed();
    eventually("it is found well", || trouble(&served, "a").is_empty()).await;
    assert!(ill.requests()[0].starts_with("GET /health HTTP/1.1\r\n"));
}

#[tokio::test]
async fn nobody_else_is_there_so_a_sick_one_is_asked() {
    let tasks = Tasks::new();
    let fake = FakeUpstream::start(&tasks, vec![sick()]).await;
    let health = value!({"path": "/health", "intervalMs": 100, "unhealthyAfter": 1});
    let served = Served::start(&[upstream(
        "a",
        value!({"url": fake.url(), "models": ["m"], "health": health}),
    )]);
    eventually("it is found sick", || !trouble(&served, "a").is_empty()).await;
    assert_eq!(served.post(CHAT, ASK).await.status, 500, "its own answer");
}
