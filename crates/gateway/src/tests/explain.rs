//! What is told of a request afterwards, and of the trace it belongs to.

use serde_json::json as value;

use super::failover::Fleet;
use super::upstream::{Step, chunk, json, send};
use super::{Served, booked};
use telemetry::Stage;

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = b"{\"model\":\"m\"}";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn header<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    request
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, text)| text)
        .collect()
}

#[tokio::test]
async fn a_trace_goes_on_through_every_attempt() {
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    for (sent, goes_on) in [
        (
            format!("traceparent: {parent}\r\ntracestate: v=1\r\n"),
            true,
        ),
        (String::new(), false),
        (
            "traceparent: nonsense\r\ntracestate: v=1\r\n".to_owned(),
            false,
        ),
        (
            format!("traceparent: {parent}\r\ntraceparent: {parent}\r\ntracestate: v=1\r\n"),
            false,
        ),
    ] {
        let fleet = Fleet::start(vec![vec![vec![Step::Close]], vec![vec![json("{}")]]]).await;
        let headers = format!("content-type: application/json\r\n{sent}");
        let got = fleet.served.ask("POST", CHAT, &headers, ASK).await;
        assert_eq!(got.status, 200);
        let record = fleet.served.settled(got.request_id()).await;
        assert_eq!(record.context.to_string() == TRACE, goes_on, "{sent}");
        for (fake, attempt) in fleet.fakes.iter().zip(&record.attempts) {
            let requests = fake.requests();
            let request = &requests[0];
            let span = u64::from_be_bytes(attempt.span_id);
            let flags = if goes_on { "01" } else { "00" };
            let expected = format!("00-{}-{span:016x}-{flags}", record.context);
            assert_eq!(header(request, "traceparent"), [expected], "{sent}");
            let state = header(request, "tracestate");
            assert_eq!(state, if goes_on { vec!["v=1"] } else { vec![] }, "{sent}");
        }
        assert_ne!(record.attempts[0].span_id, record.attempts[1].span_id);
    }
}

#[tokio::test]
async fn every_attempt_is_told_with_its_times_and_its_end() {
    let busy = send("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    let fleet = Fleet::start(vec![
        vec![vec![Step::Close]],
        vec![vec![busy]],
        vec![vec![json("{}")]],
    ])
    .await;
    let got = fleet.served.post(CHAT, "{\"model\":\"m\"}").await;
    let record = fleet.served.settled(got.request_id()).await;
    let told: Vec<_> = record
        .attempts
        .iter()
        .map(|attempt| (attempt.upstream.as_ref(), attempt.status))
        .collect();
    assert_eq!(told, [("a", None), ("b", Some(503)), ("c", Some(200))]);
    let first = record.attempts[0].failure.as_deref().unwrap_or_default();
    assert!(first.contains("closed the connection"), "{first}");
    assert_eq!(record.attempts[1].failure.as_deref(), Some("answered 503"));
    assert_eq!(record.attempts[2].failure, None);
    // The last one's reason is the request's own.
    assert!(record.attempts[0].reason.is_some() && record.attempts[2].reason.is_none());
    let mut before = 0.0;
    for attempt in &record.attempts {
        assert!(attempt.started_ms >= before, "in order");
        before = attempt.started_ms;
        let parts =
            attempt.connect_ms.unwrap_or_default() + attempt.first_byte_ms.unwrap_or_default();
        assert!(parts <= attempt.total_ms + 1e-6);
        assert!(attempt.started_ms + attempt.total_ms <= record.total_ms + 1e-6);
    }
    assert!(record.attempts[2].first_byte_ms.is_some());
}

#[tokio::test]
async fn the_candidates_of_a_choice_are_told_with_their_scores() {
    let served = Served::start(&[
        crate::snapshot::tests::upstream(
            "a",
            value!({"url": "http://127.0.0.1:9", "models": ["m"]}),
        ),
        crate::snapshot::tests::upstream(
            "b",
            value!({"url": "http://127.0.0.1:9", "models": ["m"]}),
        ),
    ]);
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    let record = served.settled(got.request_id()).await;
    let first = &record.attempts[0];
    let mut names: Vec<_> = first
        .candidates
        .iter()
        .map(|each| each.upstream.as_ref())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);
    let chosen = first
        .candidates
        .iter()
        .find(|each| each.verdict == "chosen");
    assert_eq!(chosen.map(|each| &each.upstream), Some(&first.upstream));
    assert!(chosen.is_some_and(|each| each.score.is_some()));
}

#[tokio::test]
async fn the_time_between_the_parts_of_an_answer_is_the_upstreams() {
    let steps = vec![
        send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"),
        chunk("one"),
        Step::Wait,
        chunk("two"),
        send("0\r\n\r\n"),
    ];
    let fleet = Fleet::start(vec![vec![steps]]).await;
    let mut client = fleet.served.client().await;
    client.send("POST", CHAT, "", ASK).await;
    let head = client.head().await;
    // It is flushed only when there is no next part yet.
    assert_eq!(client.chunk().await.expect("1"), b"one");
    fleet.fakes[0].proceed();
    assert_eq!(client.chunk().await.expect("2"), b"two");
    let record = fleet.served.settled(head.request_id()).await;
    let gap = booked(&record, Stage::Gap);
    assert!(gap > 0.0, "{record:?}");
    let sum: f64 = record.stages.iter().map(|stage| stage.ms).sum();
    assert!((sum - record.total_ms).abs() < 1e-6);
}
