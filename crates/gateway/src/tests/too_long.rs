//! A request longer than the context of whoever was asked goes where the route's owner says, or is refused as it was.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json as value};

use super::failover::Fleet;
use super::upstream::{Step, chunk, json, send, stream_head};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "{\"model\":\"m\", \"messages\":[]}";
const STREAM: &str = "{\"model\":\"m\",\"stream\":true}";

/// The odd spacing must arrive.
const OPENAI: &str = "{ \"error\": {\"message\":\"too much\",\"type\":\"invalid_request_error\",\"code\" : \"context_length_exceeded\"} }\n";
const VLLM: &str = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.","type":"BadRequestError","param":null,"code":400}"#;
const LLAMA: &str = r#"{"error":{"code":400,"message":"request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#;
const FILTERED: &str =
    r#"{"error":{"message":"rejected by the safety system","code":"content_policy_violation"}}"#;

/// A refusal with its length.
fn refused(status: u16, headers: &str, body: &[u8]) -> Step {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Word\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    Step::Send([head.as_bytes(), body].concat())
}

fn bad(body: &str) -> Vec<Vec<Step>> {
    vec![vec![refused(400, "", body.as_bytes())]]
}

fn good(body: &str) -> Vec<Vec<Step>> {
    vec![vec![json(body)]]
}

/// `b` is there for what is too long for `a`, under another model's name.
fn larger() -> Value {
    value!({"fallback": [{"upstream": "b", "model": "m-long", "for": ["contextLength"]}]})
}

async fn fleet(scripts: Vec<Vec<Vec<Step>>>) -> Fleet {
    Fleet::with(scripts, &larger(), &value!({})).await
}

#[tokio::test]
async fn what_is_too_long_is_answered_by_the_one_named_for_it() {
    for body in [OPENAI, VLLM, LLAMA] {
        let fleet = fleet(vec![bad(body), good("{\"from\":\"b\"}")]).await;
        let got = fleet.served.post(CHAT, ASK).await;
        assert_eq!(
            (got.status, got.text()),
            (200, "{\"from\":\"b\"}"),
            "{body}"
        );
        assert_eq!(fleet.asked(), [1, 1]);
        let asked = fleet.fakes[1].requests();
        assert!(
            asked[0].ends_with("{\"model\":\"m-long\", \"messages\":[]}"),
            "{asked:?}"
        );
        let record = fleet.served.settled(got.request_id()).await;
        assert_eq!(&*record.target, "b");
        let told = "`a` was asked before: answered 400: the request is longer than its context; \
                    route `way`: the request is longer than the context of who was asked, and fallback 1 is `b`";
        assert_eq!(record.reason, told);
        let statuses: Vec<_> = record.attempts.iter().map(|one| one.status).collect();
        assert_eq!(statuses, [Some(400), Some(200)]);
    }
}

#[tokio::test]
async fn a_stream_begins_at_the_one_named_for_it() {
    let event =
        "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let stream = vec![
        stream_head(),
        chunk(event),
        chunk("data: [DONE]\n\n"),
        send("0\r\n\r\n"),
    ];
    // Refusals come in parts as well.
    let (start, end) = VLLM.split_at(20);
    let head = "HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n";
    let parts = vec![send(head), chunk(start), chunk(end), send("0\r\n\r\n")];
    let fleet = fleet(vec![vec![parts], vec![stream]]).await;
    let got = fleet.served.post(CHAT, STREAM).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.text(), format!("{event}data: [DONE]\n\n"));
    assert_eq!(fleet.asked(), [1, 1]);
}

#[tokio::test]
async fn without_anybody_named_for_it_the_refusal_is_passed_on() {
    for route in [
        value!({}),
        // It is there for failures, and this is none.
        value!({"fallback": [{"upstream": "b", "for": ["failure"]}]}),
        value!({"fallback": [], "targets": [{"upstream": "a"}]}),
        // Nobody else is to be asked at all.
        value!({"fallback": [{"upstream": "b", "for": ["contextLength"]}], "retry": {"attempts": 1}}),
    ] {
        let scripts = vec![bad(OPENAI), good("{}")];
        let fleet = Fleet::with(scripts, &route, &value!({})).await;
        for body in [ASK, STREAM] {
            let got = fleet.served.post(CHAT, body).await;
            assert_eq!((got.status, got.text()), (400, OPENAI), "{route}");
            assert_eq!(
                got.header("content-length"),
                Some(&*OPENAI.len().to_string())
            );
            assert!(got.whole);
        }
        assert_eq!(fleet.asked(), [2, 0], "{route}");
    }
}

#[tokio::test]
async fn the_first_refusal_is_passed_on_when_nobody_with_a_larger_context_answers() {
    for fault in [
        refused(500, "", b"{}"),
        refused(429, "retry-after: 3\r\n", b"{}"),
        refused(401, "", b"{}"),
        refused(400, "", LLAMA.as_bytes()),
        refused(400, "", FILTERED.as_bytes()),
        Step::Close,
    ] {
        let fleet = fleet(vec![bad(OPENAI), vec![vec![fault.clone()]]]).await;
        for body in [ASK, STREAM] {
            let got = fleet.served.post(CHAT, body).await;
            assert_eq!((got.status, got.text()), (400, OPENAI), "{fault:?}");
            assert!(got.whole && got.header("retry-after").is_none());
            let record = fleet.served.settled(got.request_id()).await;
            assert_eq!((&*record.target, record.complete), ("a", true));
        }
        // The one that failed is asked again, unless it wants a pause.
        assert_eq!(fleet.asked()[0], 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_content_filter_has_the_last_word() {
    let route = value!({"fallback": [{"upstream": "b", "for": ["failure", "contextLength"]}]});
    let scripts = vec![bad(FILTERED), good("{}")];
    let fleet = Fleet::with(scripts, &route, &value!({})).await;
    for body in [ASK, STREAM] {
        let got = fleet.served.post(CHAT, body).await;
        assert_eq!((got.status, got.text()), (400, FILTERED));
    }
    assert_eq!(fleet.asked(), [2, 0]);
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_refusal_that_is_long_or_packed_in_an_unknown_way_is_passed_on_unread() {
    let long = OPENAI.replacen(
        '{',
        &format!("{{\"padding\":\"{}\",", "x".repeat(70_000)),
        1,
    );
    let (start, end) = long.split_at(40_000);
    let announced = refused(400, "", long.as_bytes());
    let head = send("HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n");
    let in_parts = vec![head, chunk(start), chunk(end), send("0\r\n\r\n")];
    let unknown = refused(400, "content-encoding: br\r\n", OPENAI.as_bytes());
    let broken = refused(400, "content-encoding: gzip\r\n", OPENAI.as_bytes());
    for (script, body) in [
        (vec![announced], long.as_str()),
        (in_parts, long.as_str()),
        (vec![unknown], OPENAI),
        (vec![broken], OPENAI),
    ] {
        let fleet = fleet(vec![vec![script], good("{}")]).await;
        let got = fleet.served.post(CHAT, ASK).await;
        assert_eq!((got.status, got.text(), got.whole), (400, body, true));
        assert_eq!(fleet.asked(), [1, 0]);
    }
    // What is packed as everybody knows is read, and passed on as it came.
    let gzip = packed(OPENAI);
    let step = refused(400, "content-encoding: gzip\r\n", &gzip);
    let fleet = fleet(vec![vec![vec![step]], vec![vec![Step::Close]]]).await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!((got.status, got.body), (400, gzip));
    assert_eq!(fleet.asked(), [1, 1]);
}

#[tokio::test]
async fn a_refusal_that_is_cut_while_it_is_read_is_told_as_that() {
    let cut = send("HTTP/1.1 400 Bad Request\r\ncontent-length: 5000\r\n\r\n{\"error\":");
    let fleet = fleet(vec![vec![vec![cut, Step::Close]], good("{}")]).await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!(got.status, 502);
    let part = "upstream `a` answered 400 and stopped in the middle of it";
    assert!(got.text().contains(part), "{}", got.text());
    assert_eq!(fleet.asked(), [1, 0]);
}

#[tokio::test]
async fn who_is_there_for_long_requests_only_gets_no_others() {
    let fleet = fleet(vec![vec![vec![refused(503, "", b"busy")]], good("{}")]).await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!((got.status, got.text()), (503, "busy"));
    assert_eq!(fleet.asked(), [1, 0]);
}

#[tokio::test]
async fn long_requests_count_against_nobody_and_draw_on_the_budget() {
    let fleet = fleet(vec![bad(OPENAI), vec![vec![refused(500, "", b"{}")]]]).await;
    let requests = 200;
    for _ in 0..requests {
        let got = fleet.served.post(CHAT, ASK).await;
        assert_eq!((got.status, got.text()), (400, OPENAI));
    }
    let asked = fleet.asked();
    assert_eq!(asked[0], requests, "never left alone");
    assert!(asked[1] <= 100, "{asked:?}");
}
