use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::RequestId;

use super::*;
use crate::record::{Details, StageTime};
use crate::{Stage, TraceContext};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A streamed chat that the first upstream refused and the second answered.
fn retried() -> Record {
    let id = RequestId::from_client(Some(b"req-1"));
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let context = TraceContext::follow(Some(PARENT.as_bytes()));
    let attempt = |name: &str, number: usize| Attempt {
        upstream: name.into(),
        server: "10.0.0.1".into(),
        port: 8001,
        provider: "vllm",
        model: None,
        span_id: context.attempt_id(number),
        started_ms: 10.0 * number as f64,
        connect_ms: Some(1.0),
        first_byte_ms: Some(2.0),
        total_ms: 5.0,
        status: Some(503),
        failure: Some("answered 503".to_owned()),
        reason: Some("route `r`".to_owned()),
        rule: "two at random, the less busy",
        unit: "requests",
        candidates: vec![
            Candidate {
                upstream: "a".into(),
                score: Some(1.0),
                verdict: "chosen",
            },
            Candidate {
                upstream: "b".into(),
                score: None,
                verdict: "unusable",
            },
        ],
    };
    let second = Attempt {
        status: Some(200),
        failure: None,
        reason: None,
        model: Some(Arc::from("big-v2")),
        candidates: Vec::new(),
        ..attempt("b", 2)
    };
    Record {
        context,
        trace_state: Some("v=1".into()),
        method: "POST",
        route: "/v1/chat/completions",
        model: "big".to_owned(),
        target: "b".into(),
        reason: "the other one".to_owned(),
        status: 200,
        complete: true,
        total_ms: 40.0,
        stages: vec![StageTime {
            stage: Stage::Queue,
            ms: 3.0,
        }],
        attempts: vec![attempt("a", 1), second],
        generation: Some(told()),
        ..Record::new(&id, started, "openai chat.completions")
    }
}

fn told() -> Generation {
    Generation {
        operation: "chat",
        provider: "vllm",
        stream: true,
        input_tokens: Some(12),
        output_tokens: Some(0),
        first_token_ms: Some(20.0),
        per_token_ms: None,
        details: Some(Box::new(Details {
            id: Some("chatcmpl-1".into()),
            model: Some("big-v2".into()),
            finish_reason: Some("stop".into()),
        })),
    }
}

/// `name=value`, a number with `#` before it.
fn said(attributes: &[KeyValue]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => format!("#{number}"),
        Value::Double(number) => format!("#{number}"),
        Value::Bool(value) => value.to_string(),
        Value::List(list) => {
            let texts = list.values.iter().map(|value| match &value.value {
                Some(Value::Text(text)) => text.clone(),
                other => format!("{other:?}"),
            });
            format!("[{}]", texts.collect::<Vec<_>>().join(" | "))
        }
    };
    let value = |pair: &KeyValue| pair.value.as_ref()?.value.as_ref().map(text);
    attributes
        .iter()
        .map(|pair| format!("{}={}", pair.key, value(pair).unwrap_or_default()))
        .collect()
}

fn has(attributes: &[KeyValue], wanted: &[&str]) {
    let said = said(attributes);
    for wanted in wanted {
        assert!(
            said.iter().any(|have| have == wanted),
            "{wanted}: {said:#?}"
        );
    }
}

#[test]
fn a_request_is_a_servers_span_with_what_is_known_of_its_answer() {
    let record = retried();
    let spans = spans(&record);
    assert_eq!(spans.len() as u64, record.spans());
    let span = &spans[0];
    assert_eq!(
        (span.name.as_str(), span.kind),
        ("chat big", SpanKind::Server as i32)
    );
    assert_eq!(span.trace_id, record.context.trace_id());
    assert_eq!(span.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!((span.trace_state.as_str(), span.flags), ("v=1", 0x301));
    assert_eq!(span.start_time_unix_nano, 1_000_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_000_040_000_000);
    assert_eq!(span.status, None);
    has(
        &span.attributes,
        &[
            "gen_ai.operation.name=chat",
            "gen_ai.provider.name=vllm",
            "gen_ai.request.model=big",
            "gen_ai.request.stream=true",
            "gen_ai.response.id=chatcmpl-1",
            "gen_ai.response.model=big-v2",
            "gen_ai.response.finish_reasons=[stop]",
            "gen_ai.response.time_to_first_chunk=#0.02",
            "gen_ai.usage.input_tokens=#12",
            "gen_ai.usage.output_tokens=#0",
            "http.request.method=POST",
            "http.response.status_code=#200",
            "http.route=/v1/chat/completions",
            "kapok.reason=the other one",
            "kapok.request.id=req-1",
            "kapok.stage.queue=#0.003",
            "kapok.target=b",
        ],
    );
    let names = said(&span.attributes);
    assert!(
        !names.iter().any(|name| name.starts_with("error.type")),
        "{names:?}"
    );
}

#[test]
fn every_attempt_is_a_child_with_its_upstream_its_status_and_its_reason() {
    let record = retried();
    let spans = spans(&record);
    let [request, refused, answered] = &spans[..] else {
        panic!("{spans:#?}")
    };
    for (number, child) in [(1, refused), (2, answered)] {
        assert_eq!(child.parent_span_id, request.span_id);
        assert_eq!(child.span_id, record.context.attempt_id(number));
        assert_eq!(child.trace_id, request.trace_id);
        assert_eq!((child.kind, child.flags), (SpanKind::Client as i32, 0x101));
        let names: Vec<_> = child.events.iter().map(|event| &*event.name).collect();
        assert_eq!(names, ["connected", "first_byte"]);
        assert_eq!(
            child.events[1].time_unix_nano,
            child.start_time_unix_nano + 3_000_000
        );
        has(
            &child.attributes,
            &["server.address=10.0.0.1", "server.port=#8001"],
        );
    }
    assert_eq!(refused.name, "chat big");
    assert_eq!(refused.start_time_unix_nano, 1_000_010_000_000);
    let status = refused.status.clone().unwrap_or_default();
    assert_eq!(
        (status.code, status.message.as_str()),
        (StatusCode::Error as i32, "answered 503")
    );
    has(
        &refused.attributes,
        &[
            "error.type=503",
            "http.response.status_code=#503",
            "kapok.route.candidates=[a: chosen, 1.0 requests | b: unusable]",
            "kapok.route.reason=route `r`",
            "kapok.upstream=a",
        ],
    );
    let first = said(&refused.attributes);
    assert!(
        !first.iter().any(|text| text.contains("resend_count")),
        "{first:?}"
    );
    assert!(
        !first.iter().any(|text| text.contains("usage")),
        "{first:?}"
    );
    assert_eq!(
        (answered.name.as_str(), &answered.status),
        ("chat big-v2", &None)
    );
    has(
        &answered.attributes,
        &[
            "gen_ai.request.model=big-v2",
            "gen_ai.usage.input_tokens=#12",
            "http.request.resend_count=#1",
            "kapok.route.reason=the other one",
        ],
    );
}

#[test]
fn who_is_to_blame_is_said() {
    for (status, complete, error, failed) in [
        (200, true, None, false),
        (404, true, Some("no such model"), false),
        (499, false, None, false),
        (502, true, Some("no upstream"), true),
        (200, false, Some("cut"), true),
        (200, false, None, false),
    ] {
        let record = Record {
            status,
            complete,
            error: error.map(str::to_owned),
            generation: None,
            ..retried()
        };
        let span = &spans(&record)[0];
        assert_eq!(
            span.status.is_some(),
            failed,
            "{status} {complete} {error:?}"
        );
        assert_eq!(span.name, "POST /v1/chat/completions");
        has(&span.attributes, &["kapok.model=big"]);
    }
    for (connect_ms, status, failure, expected) in [
        (None, None, Some("not reachable"), "connect"),
        (Some(1.0), None, Some("closed"), "no_answer"),
        (
            Some(1.0),
            Some(200),
            Some("stopped in the middle"),
            "incomplete",
        ),
        (Some(1.0), Some(418), Some("answered 418"), "_OTHER"),
        (Some(1.0), Some(200), None, ""),
    ] {
        let attempt = Attempt {
            connect_ms,
            status,
            failure: failure.map(str::to_owned),
            ..retried().attempts[0].clone()
        };
        assert_eq!(attempt.error_type(), expected);
    }
}

#[test]
fn a_trace_that_begins_here_has_no_parent() {
    let id = RequestId::from_client(None);
    let record = Record {
        context: TraceContext::follow(None),
        ..Record::new(&id, SystemTime::UNIX_EPOCH, "unknown")
    };
    let spans = spans(&record);
    assert_eq!(spans.len(), 1);
    assert_eq!((spans[0].name.as_str(), spans[0].flags), ("unknown", 0x101));
    assert!(spans[0].parent_span_id.is_empty());
}
