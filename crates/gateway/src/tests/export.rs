//! What is learnt of answers on their way, and what a collector hears of it.

use protocol::resource::{OtlpSpec, Share, UpstreamKind};
use serde_json::json as value;
use telemetry::Record;

use super::upstream::{FakeUpstream, IDLE_MS, Step, chunk, json, send, stream_head};
use super::{Served, eventually};
use crate::Config;
use crate::snapshot::tests::upstream;

const CHAT: &str = "/v1/chat/completions";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

/// A gateway with one upstream that answers so, and a collector, or none.
async fn start(script: Vec<Step>, otlp: impl FnOnce(String) -> OtlpSpec) -> (Served, FakeUpstream) {
    let beside = base::Tasks::new();
    let taken = send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let collector = FakeUpstream::start(&beside, vec![vec![taken]]).await;
    let config = Config {
        otlp: otlp(collector.url()),
        ..Config::default()
    };
    let served = Served::with(config, &[]);
    let fake = FakeUpstream::start(&served.tasks, vec![script]).await;
    let fields = value!({
        "url": fake.url(), "kind": UpstreamKind::Vllm, "idleTimeoutMs": IDLE_MS,
        "load": {"intervalMs": 0}, "health": {"path": ""},
    });
    served
        .gateway
        .publish(&[upstream("llm", fields)])
        .expect("good resources");
    (served, collector)
}

fn on(endpoint: String) -> OtlpSpec {
    OtlpSpec {
        endpoint: Some(endpoint),
        ..OtlpSpec::default()
    }
}

fn off(_: String) -> OtlpSpec {
    OtlpSpec::default()
}

async fn ask(served: &Served, headers: &str, body: &str) -> std::sync::Arc<Record> {
    let headers = format!("content-type: application/json\r\n{headers}");
    let got = served.ask("POST", CHAT, &headers, body.as_bytes()).await;
    assert_eq!(got.status, 200);
    served.settled(got.request_id()).await
}

fn told_stream() -> Vec<Step> {
    let part = |text: &str| {
        let delta = value!({"id": "chatcmpl-7", "model": "big-v2", "choices": [{"index": 0, "delta": {"content": text}}]});
        chunk(&format!("data: {delta}\n\n"))
    };
    let end = value!({"id": "chatcmpl-7", "model": "big-v2", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]});
    let usage = value!({"id": "chatcmpl-7", "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2}});
    vec![
        stream_head(),
        part("one"),
        part(" two"),
        chunk(&format!("data: {end}\n\n")),
        chunk(&format!("data: {usage}\n\n")),
        chunk("data: [DONE]\n\n"),
        send("0\r\n\r\n"),
    ]
}

#[tokio::test]
async fn a_streams_own_words_are_kept_for_its_span() {
    let (served, _collector) = start(told_stream(), on).await;
    let body = r#"{"model":"big","stream":true,"messages":[]}"#;
    let state = "tracestate: v=1\r\ntracestate: w=2\r\n";
    let headers = format!("traceparent: {PARENT}-01\r\n{state}");
    let record = ask(&served, &headers, body).await;
    let told = record.generation.clone().expect("a model made it");
    assert_eq!(
        (told.operation, told.provider, told.stream),
        ("chat", "vllm", true)
    );
    assert_eq!((told.input_tokens, told.output_tokens), (Some(11), Some(2)));
    assert!(told.first_token_ms.is_some_and(|ms| ms > 0.0), "{told:?}");
    assert!(told.per_token_ms.is_some(), "{told:?}");
    let details = told.details.expect("it is recorded");
    assert_eq!(details.id.as_deref(), Some("chatcmpl-7"));
    assert_eq!(details.model.as_deref(), Some("big-v2"));
    assert_eq!(details.finish_reason.as_deref(), Some("length"));
    assert_eq!(record.trace_state.as_deref(), Some("v=1,w=2"));

    let page = served.get_admin("/metrics").await;
    let page = page.text();
    let of =
        r#"gen_ai_operation_name="chat",gen_ai_provider_name="vllm",gen_ai_request_model="big""#;
    for line in [
        format!("gen_ai_client_operation_duration_seconds_count{{{of},error_type=\"\"}} 1"),
        format!("gen_ai_server_request_duration_seconds_count{{{of},error_type=\"\"}} 1"),
        format!("gen_ai_server_time_to_first_token_seconds_count{{{of}}} 1"),
        format!("gen_ai_client_token_usage_sum{{{of},gen_ai_token_type=\"input\"}} 11.0"),
        format!("gen_ai_client_token_usage_sum{{{of},gen_ai_token_type=\"output\"}} 2.0"),
        "http_server_request_duration_seconds_count{http_request_method=\"POST\",url_scheme=\"http\",http_route=\"/v1/chat/completions\",http_response_status_code=\"200\",error_type=\"\"} 1".to_owned(),
    ] {
        assert!(page.lines().any(|have| have == line), "{line} is missing in:\n{page}");
    }
}

#[tokio::test]
async fn who_decides_what_is_recorded() {
    let sample = |share, follow_parent| {
        move |endpoint| OtlpSpec {
            sample: Share(share),
            follow_parent,
            ..on(endpoint)
        }
    };
    for (share, follows, flags, recorded) in [
        (1.0, true, None, true),
        (0.0, true, None, false),
        (0.0, true, Some("01"), true),
        (1.0, true, Some("00"), false),
        (0.0, false, Some("01"), false),
        (1.0, false, Some("00"), true),
    ] {
        let (served, _collector) = start(told_stream(), sample(share, follows)).await;
        let parent = flags.map_or_else(String::new, |flags| {
            format!("traceparent: {PARENT}-{flags}\r\n")
        });
        let record = ask(&served, &parent, r#"{"model":"big","stream":true}"#).await;
        let case = format!("{share} {follows} {flags:?}");
        assert_eq!(record.context.sampled(), recorded, "{case}");
        let told = record.generation.as_ref().expect("a model made it");
        assert_eq!(
            told.details.is_some(),
            recorded,
            "{case}: nothing is kept for nobody"
        );
    }
}

#[tokio::test]
async fn usage_of_whole_answers_is_read_only_for_an_export() {
    let body = r#"{"id":"x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9}}"#;
    for (otlp, usage) in [(on as fn(String) -> OtlpSpec, Some((5, 9))), (off, None)] {
        let (served, _collector) = start(vec![json(body)], otlp).await;
        let record = ask(&served, "", r#"{"model":"big"}"#).await;
        let told = record.generation.as_ref().expect("a model made it");
        assert_eq!(told.input_tokens.zip(told.output_tokens), usage);
        assert_eq!(told.first_token_ms, None, "it is no stream");
    }
}

#[tokio::test]
async fn what_was_recorded_is_sent_before_the_node_ends() {
    let (served, collector) = start(told_stream(), on).await;
    ask(&served, "", r#"{"model":"big","stream":true}"#).await;
    served.tasks.stop();
    let got = |path: &str| {
        let requests = collector.requests();
        let sent = format!("POST {path} HTTP/1.1");
        requests.iter().any(|request| request.starts_with(&sent))
    };
    eventually("spans and metrics", || {
        got("/v1/traces") && got("/v1/metrics")
    })
    .await;
    let requests = collector.requests();
    assert!(
        requests.iter().any(|request| request.contains("chat big")),
        "{requests:?}"
    );
    assert!(
        requests
            .iter()
            .any(|request| request.contains("gen_ai.server.request.duration"))
    );
}
