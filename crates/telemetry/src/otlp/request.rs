use std::time::Duration;

use protocol::otlp::{Event, KeyValue, Span, SpanKind, Status, StatusCode, Value};

use super::{as_nanos, nanos};
use crate::record::{Attempt, Candidate, Generation, Record};

/// Of a span's flags: it is known whether the parent is in another process, and it is.
const PARENT_KNOWN: u32 = 1 << 8;
const PARENT_ELSEWHERE: u32 = 1 << 9;

/// The request as the client sees it, then each attempt to have an upstream answer it.
pub fn spans(record: &Record) -> Vec<Span> {
    let mut spans = Vec::with_capacity(1 + record.attempts.len());
    spans.push(request(record));
    let attempts = record.attempts.iter().enumerate();
    spans.extend(attempts.map(|(index, attempt)| child(record, attempt, index)));
    spans
}

fn request(record: &Record) -> Span {
    let context = &record.context;
    let parent = context.parent_id();
    let start = nanos(record.started);
    Span {
        trace_id: context.trace_id().to_vec(),
        span_id: context.span_id().to_vec(),
        parent_span_id: parent.map_or_else(Vec::new, |id| id.to_vec()),
        trace_state: record.trace_state.as_deref().unwrap_or_default().to_owned(),
        flags: 1
            | PARENT_KNOWN
            | if parent.is_some() {
                PARENT_ELSEWHERE
            } else {
                0
            },
        name: name(record, &record.model),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(ms(record.total_ms)),
        attributes: about_request(record),
        events: Vec::new(),
        status: failed(record).then(|| Status {
            message: record.error.clone().unwrap_or_default(),
            code: StatusCode::Error as i32,
        }),
    }
}

/// A server is blamed for what it did wrong, not for what it was asked.
fn failed(record: &Record) -> bool {
    record.status >= 500 || (!record.complete && record.error.is_some())
}

/// What is asked for, of whom.
fn name(record: &Record, model: &str) -> String {
    match &record.generation {
        Some(generation) if model.is_empty() => generation.operation.to_owned(),
        Some(generation) => format!("{} {model}", generation.operation),
        None if record.route.is_empty() => record.operation.to_owned(),
        None => format!("{} {}", record.method, record.route),
    }
}

fn about_request(record: &Record) -> Vec<KeyValue> {
    let mut said = Attributes::default();
    said.text("http.request.method", record.method);
    said.text("http.route", record.route);
    said.text("url.scheme", "http");
    said.some("http.response.status_code", Some(i64::from(record.status)));
    said.text("error.type", record.error_type);
    match &record.generation {
        Some(generation) => {
            said.generation(generation, &record.model);
            said.answer(generation);
        }
        None => said.text("kapok.model", &record.model),
    }
    said.text("kapok.request.id", &record.request_id);
    said.text("kapok.operation", record.operation);
    said.text("kapok.target", &record.target);
    said.text("kapok.reason", &record.reason);
    said.some("kapok.complete", Some(record.complete));
    for stage in &record.stages {
        // Seconds, as all of OpenTelemetry's durations.
        let name = format!("kapok.stage.{}", stage.stage.name());
        said.0.push(KeyValue::new(name, stage.ms / 1e3));
    }
    said.0
}

fn child(record: &Record, attempt: &Attempt, index: usize) -> Span {
    let context = &record.context;
    let start = nanos(record.started).saturating_add(ms(attempt.started_ms));
    let model = attempt.model.as_deref().unwrap_or(&record.model);
    let mut events = Vec::new();
    if let Some(connect) = attempt.connect_ms {
        events.push(event("connected", start.saturating_add(ms(connect))));
        if let Some(first_byte) = attempt.first_byte_ms {
            let at = start.saturating_add(ms(connect + first_byte));
            events.push(event("first_byte", at));
        }
    }
    Span {
        trace_id: context.trace_id().to_vec(),
        span_id: attempt.span_id.to_vec(),
        parent_span_id: context.span_id().to_vec(),
        trace_state: record.trace_state.as_deref().unwrap_or_default().to_owned(),
        flags: 1 | PARENT_KNOWN,
        name: name(record, model),
        kind: SpanKind::Client as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(ms(attempt.total_ms)),
        attributes: about_attempt(record, (attempt, index), model),
        events,
        status: (!attempt.error_type().is_empty()).then(|| Status {
            message: attempt.failure.clone().unwrap_or_default(),
            code: StatusCode::Error as i32,
        }),
    }
}

fn about_attempt(
    record: &Record,
    (attempt, index): (&Attempt, usize),
    model: &str,
) -> Vec<KeyValue> {
    let mut said = Attributes::default();
    if let Some(generation) = &record.generation {
        let generation = Generation {
            provider: attempt.provider,
            ..generation.clone()
        };
        said.generation(&generation, model);
        if attempt.failure.is_none() && attempt.status.is_some() {
            said.answer(&generation);
        }
    }
    said.text("http.request.method", record.method);
    said.text("server.address", &attempt.server);
    said.some("server.port", Some(i64::from(attempt.port)));
    let status = attempt.status.map(i64::from);
    said.some("http.response.status_code", status);
    let resent = i64::try_from(index).ok().filter(|index| *index > 0);
    said.some("http.request.resend_count", resent);
    said.text("error.type", attempt.error_type());
    said.text("kapok.upstream", &attempt.upstream);
    // The latest choice is the request's.
    let latest = index + 1 == record.attempts.len();
    let reason = attempt.reason.as_deref();
    let reason = reason.or_else(|| latest.then_some(record.reason.as_str()));
    said.text("kapok.route.reason", reason.unwrap_or_default());
    said.text("kapok.route.rule", attempt.rule);
    if attempt.candidates.len() > 1 {
        let told = attempt.candidates.iter();
        let told: Vec<String> = told
            .map(|candidate| tell(candidate, attempt.unit))
            .collect();
        said.0
            .push(KeyValue::new("kapok.route.candidates", Value::from(told)));
    }
    said.0
}

/// A candidate in words: `b: worse, 2.0 requests`.
fn tell(candidate: &Candidate, unit: &str) -> String {
    let (name, verdict) = (&candidate.upstream, candidate.verdict);
    match candidate.score {
        Some(score) if !unit.is_empty() => format!("{name}: {verdict}, {score:.1} {unit}"),
        _ => format!("{name}: {verdict}"),
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// What is empty is not said.
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push(KeyValue::new(name, value));
        }
    }

    fn some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(name, value));
        }
    }

    /// What was asked for.
    fn generation(&mut self, generation: &Generation, model: &str) {
        self.text("gen_ai.operation.name", generation.operation);
        self.text("gen_ai.provider.name", generation.provider);
        self.text("gen_ai.request.model", model);
        if generation.stream {
            self.some("gen_ai.request.stream", Some(true));
        }
    }

    /// What is known of the answer.
    fn answer(&mut self, generation: &Generation) {
        let details = generation.details.as_deref();
        let text = |field: fn(&crate::record::Details) -> &Option<Box<str>>| {
            details.and_then(|details| field(details).as_deref())
        };
        self.text(
            "gen_ai.response.id",
            text(|told| &told.id).unwrap_or_default(),
        );
        self.text(
            "gen_ai.response.model",
            text(|told| &told.model).unwrap_or_default(),
        );
        if let Some(reason) = text(|told| &told.finish_reason) {
            let reasons = Value::from(vec![reason.to_owned()]);
            self.0
                .push(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        }
        self.some("gen_ai.usage.input_tokens", generation.input_tokens);
        self.some("gen_ai.usage.output_tokens", generation.output_tokens);
        let first = generation.first_token_ms.map(|ms| ms / 1e3);
        self.some("gen_ai.response.time_to_first_chunk", first);
    }
}

fn event(name: &str, at: u64) -> Event {
    Event {
        time_unix_nano: at,
        name: name.to_owned(),
        attributes: Vec::new(),
    }
}

/// In nanoseconds.
fn ms(ms: f64) -> u64 {
    Duration::try_from_secs_f64(ms / 1e3).map_or(0, as_nanos)
}

#[cfg(test)]
mod tests;
