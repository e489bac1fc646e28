//! What upstreams say of their load.

use std::sync::Arc;

use base::Tasks;
use serde_json::json;

use super::upstream::{FakeUpstream, Step, send};
use super::{Served, eventually};
use crate::snapshot::tests::upstream;

fn page(text: &str) -> Vec<Step> {
    let length = text.len();
    vec![send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
    ))]
}

/// Requests that the upstream says are in line.
fn waiting(served: &Served, name: &str) -> Option<u32> {
    let snapshot = served.gateway.snapshot();
    let upstream = Arc::clone(snapshot.upstreams.get(name)?);
    let load = upstream.live.meter.read(served.gateway.shared().now_ms());
    load.reported.and_then(|reported| reported.report.queued)
}

#[tokio::test]
async fn a_page_is_looked_at_again_and_again() {
    let tasks = Tasks::new();
    let line = |count: u32| {
        page(&format!(
            "vllm:num_requests_waiting{{engine=\"0\"}} {count}\n"
        ))
    };
    let fake = FakeUpstream::start(&tasks, vec![line(7), page("# nothing\n"), line(3)]).await;
    let fields = json!({"url": fake.url(), "kind": "vllm", "load": {"intervalMs": 100}});
    let served = Served::start(&[upstream("u", fields)]);
    eventually("the first report", || waiting(&served, "u") == Some(7)).await;
    eventually("the next one", || waiting(&served, "u") == Some(3)).await;
    let requests = fake.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.starts_with("GET /metrics HTTP/1.1"))
    );
    assert_eq!(fake.connections(), 1, "looks share a connection");
}

#[tokio::test]
async fn tritons_page_is_where_the_resource_says() {
    let tasks = Tasks::new();
    let fake =
        FakeUpstream::start(&tasks, vec![page("nv_inference_pending_request_count 4\n")]).await;
    let load = json!({"url": format!("{}/metrics", fake.url()), "intervalMs": 100});
    let served = Served::start(&[upstream("t", json!({"kind": "triton", "load": load}))]);
    eventually("a report", || waiting(&served, "t") == Some(4)).await;
}

#[tokio::test]
async fn who_does_not_tell_is_asked_no_more_than_that() {
    let tasks = Tasks::new();
    let nothing = vec![send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")];
    let silent = FakeUpstream::start(&tasks, vec![nothing]).await;
    let telling = page("sglang:num_queue_reqs 1\n");
    let other = FakeUpstream::start(&tasks, vec![telling]).await;
    let every = json!({"intervalMs": 100});
    let served = Served::start(&[
        upstream(
            "silent",
            json!({"url": silent.url(), "kind": "vllm", "load": every}),
        ),
        upstream(
            "other",
            json!({"url": other.url(), "kind": "sglang", "load": every}),
        ),
        upstream(
            "never",
            json!({"url": silent.url(), "kind": "vllm", "load": {"intervalMs": 0}}),
        ),
        upstream("plain", json!({"url": silent.url()})),
    ]);
    eventually("twenty looks at one", || other.requests().len() >= 20).await;
    assert_eq!(waiting(&served, "other"), Some(1));
    for name in ["silent", "never", "plain"] {
        assert_eq!(waiting(&served, name), None, "{name}");
    }
    // 0.1 s, 0.2, 0.4, 0.8, 1.6 …: fewer than the other's steady ones.
    assert!(silent.requests().len() <= 8, "{}", silent.requests().len());
}
