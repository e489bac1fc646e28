//! Spans and metrics in real collectors, and requests that do not care how those are.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::python::Script;
use e2e::{Answer, FakeUpstream, Kapok, Running, wait};

/// A Node that sends there, an upstream that is busy, and another that answers.
fn config(otlp: &str, busy: &str, good: &str) -> String {
    format!(
        "\
apiVersion: kapok.dev/v1alpha1
kind: Node
metadata: {{name: here}}
spec:
  otlp: {otlp}
---
apiVersion: kapok.dev/v1alpha1
kind: Upstream
metadata: {{name: busy}}
spec: {{url: '{busy}', kind: vllm, models: [], load: {{intervalMs: 0}}, health: {{path: ''}}}}
---
apiVersion: kapok.dev/v1alpha1
kind: Upstream
metadata: {{name: good}}
spec: {{url: '{good}', kind: vllm, models: [], load: {{intervalMs: 0}}, health: {{path: ''}}}}
---
apiVersion: kapok.dev/v1alpha1
kind: Route
metadata: {{name: way}}
spec: {{models: [m], targets: [{{upstream: busy}}], fallback: [{{upstream: good}}]}}
"
    )
}

fn stream() -> Answer {
    let part = |delta: &str| {
        format!(r#"{{"id":"chatcmpl-1","model":"m-0613","choices":[{{"index":0,{delta}}}]}}"#)
    };
    Answer::events()
        .event(&part(r#""delta":{"role":"assistant","content":"Good"}"#))
        .event(&part(r#""delta":{"content":" day"}"#))
        .event(&part(r#""delta":{"content":"!"}"#))
        .event(&part(r#""delta":{},"finish_reason":"stop""#))
        .event(
            r#"{"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#,
        )
        .done()
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// What became of spans and points, as `/metrics` tells it.
fn exported(kapok: &Running, signal: &str, fate: &str) -> u64 {
    let page = kapok.admin().get("/metrics").text();
    let name = format!("kapok_telemetry_exported_total{{signal=\"{signal}\",fate=\"{fate}\"}} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&name));
    found.map_or(0, |count| count.parse().expect("a count"))
}

fn into_real_collectors(protocol: &str) {
    let busy = FakeUpstream::start(Answer::status(503, "{}"));
    let good = FakeUpstream::start(stream());
    let port = free_port();
    let otlp = format!(
        "{{endpoint: 'http://127.0.0.1:{port}', protocol: {protocol}, intervalSeconds: 1}}"
    );
    let kapok = Kapok::new()
        .config(config(&otlp, &busy.url(), &good.url()))
        // The collectors start after it.
        .allow_log("are not exported")
        .start();
    Script::new("otlp.py")
        .against(&kapok)
        .env("OTLP_PORT", port)
        .env("OTLP_PROTOCOL", protocol)
        .run();
    for upstream in [&busy, &good] {
        let received = upstream.received();
        let [request] = &received[..] else {
            panic!("{received:?}")
        };
        let parent = request.header("traceparent").expect("a trace");
        assert!(
            parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
            "{parent}"
        );
        assert!(parent.ends_with("-01"), "{parent}");
        assert_eq!(request.header("tracestate"), Some("vendor=1"));
        assert_eq!(request.header("baggage"), Some("team=red"));
    }
    assert!(exported(&kapok, "traces", "sent") >= 3);
    assert!(exported(&kapok, "metrics", "sent") > 0);
}

#[test]
fn a_collector_gets_spans_and_metrics_over_http() {
    into_real_collectors("http/protobuf");
}

#[test]
fn a_collector_gets_spans_and_metrics_over_grpc() {
    into_real_collectors("grpc");
}

#[test]
fn a_collector_that_is_down_slow_or_busy_costs_spans_and_no_request() {
    let slow = FakeUpstream::start(Answer::silent());
    let busy = FakeUpstream::start(
        Answer::new().write("HTTP/1.1 503 Busy\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n"),
    );
    for (name, endpoint) in [
        ("down", format!("http://127.0.0.1:{}", free_port())),
        ("slow", slow.url()),
        ("busy", busy.url()),
    ] {
        let kapok = Kapok::new()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
            .allow_log("are not exported")
            .start();
        // One batch is on its way, four wait, and the rest finds no room.
        let lost = wait::until(name, || {
            for _ in 0..100 {
                assert_eq!(kapok.http().get("/v2").status, 200, "{name}");
            }
            Some(exported(&kapok, "traces", "queue_full")).filter(|lost| *lost > 0)
        });
        assert!(lost > 0, "{name}");
        assert_eq!(exported(&kapok, "traces", "sent"), 0, "{name}");
        assert_eq!(kapok.stop(), 0, "{name}: it ends all the same");
    }
}

#[test]
fn a_busy_collector_is_asked_again_when_it_said() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let collector = FakeUpstream::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            Answer::new().write("HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n")
        }
        _ => Answer::status(200, ""),
    });
    let kapok = Kapok::new()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=s3cret")
        .env("OTEL_METRICS_EXPORTER", "none")
        .allow_log("are not exported")
        .start();
    assert_eq!(kapok.http().get("/v2").status, 200);
    let sent = collector.wait_for_requests(2);
    assert_eq!(sent[0].body, sent[1].body, "nothing is lost");
    assert_eq!(sent[1].header("x-api-key"), Some("s3cret"));
    assert_eq!(
        sent[1].header("content-type"),
        Some("application/x-protobuf")
    );
    let waited = sent[1].at.saturating_sub(sent[0].at);
    assert!(waited.as_millis() >= 990, "asked again after {waited:?}");
    let sent = wait::until("it is counted", || {
        Some(exported(&kapok, "traces", "sent")).filter(|count| *count > 0)
    });
    assert_eq!(sent, 1);
}

#[test]
fn what_was_recorded_is_sent_before_the_process_ends() {
    let collector = FakeUpstream::start(Answer::status(200, ""));
    let kapok = Kapok::new()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .start();
    assert_eq!(kapok.http().get("/v2").status, 200);
    assert_eq!(kapok.stop(), 0);
    let paths: Vec<_> = collector
        .received()
        .iter()
        .map(|request| request.path.clone())
        .collect();
    for path in ["/v1/traces", "/v1/metrics"] {
        assert!(paths.iter().any(|have| have == path), "{paths:?}");
    }
}
