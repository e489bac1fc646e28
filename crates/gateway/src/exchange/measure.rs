//! A request's account as metrics and records have it.

use std::fmt::Write as _;
use std::time::Instant;

use http::{HeaderMap, Method};
use protocol::openai::usage::Usage;
use protocol::resource::UpstreamKind;
use telemetry::status_text;

use super::attempts::Outcome;
use super::{Exchange, cut};
use crate::headers::TRACESTATE;
use crate::metrics::{Call, Told, provider};
use crate::operation::Operation;

/// W3C asks everybody to pass on at least 512 characters.
const TRACE_STATE_BYTES_MAX: usize = 1 << 10;

/// Enough for the words of most decisions.
const REASON_BYTES: usize = 96;

impl Exchange {
    /// How it failed, of few words; empty if it did not.
    pub(super) fn error_type(&self) -> &'static str {
        match (self.status, self.complete) {
            (400.., _) => status_text(self.status),
            (_, true) => "",
            (_, false) if self.error.is_some() => "incomplete",
            (_, false) => "client_gone",
        }
    }

    /// Counts it, and says what is known of its answer if a generative model made it.
    pub(super) fn measure(&mut self, seconds: f64) -> Option<telemetry::Generation> {
        let shared = self.gateway.shared();
        let error_type = self.error_type();
        // In HTTP's words a server has not failed if it was asked in vain.
        let failed = !matches!(self.status, 400..500);
        let status = (self.status, if failed { error_type } else { "" });
        let metrics = &shared.metrics;
        metrics
            .http()
            .served(self.operation, self.method, status, seconds);
        let task = self.operation.task()?;
        // Whoever is not sent on is answered here.
        let kind = self.attempts.answered_by().unwrap_or(UpstreamKind::Kapok);
        let told = self.metering.told().map(|used| Usage {
            prompt: used.prompt,
            output: used.output,
        });
        self.generation.stream |= self.operation == Operation::GenerateStream;
        let about = (self.ledger.started(), task.name(), provider(kind));
        let generation = self.generation.told(about, told);
        let call = Call {
            task,
            kind,
            model: &self.model,
            error_type,
            seconds,
        };
        let told = Told {
            first_token: generation.first_token_ms.map(|ms| ms / 1e3),
            per_token: generation.per_token_ms.map(|ms| ms / 1e3),
            tokens: generation
                .input_tokens
                .zip(generation.output_tokens)
                .map(|(input, output)| [input, output]),
        };
        metrics.gen_ai().served(call, told);
        Some(generation)
    }

    /// The reason in words, and what became of each attempt.
    pub(super) fn told(&mut self, now: Instant) -> Vec<telemetry::Attempt> {
        let attempts = std::mem::take(&mut self.attempts);
        let before = attempts.before();
        if let Some(decision) = &self.decision {
            let mut reason = before;
            reason.reserve(REASON_BYTES);
            // Writing to a String cannot fail.
            let _infallible = write!(reason, "{decision}");
            self.reason = reason;
        }
        let ending = Outcome {
            started: self.ledger.started(),
            ended: now,
            complete: self.complete,
            error: self.error.as_deref(),
        };
        let metrics = &self.gateway.shared().metrics;
        let mut number = 0;
        attempts.told(self.decision.as_deref(), &ending, |attempt, upstream| {
            number += 1;
            attempt.span_id = self.context.attempt_id(number);
            metrics
                .http()
                .asked(attempt, self.method, &upstream.live.calls);
            if let Some(task) = self.operation.task() {
                metrics.gen_ai().asked(Call {
                    task,
                    kind: upstream.spec.kind,
                    model: attempt.model.as_deref().unwrap_or(&self.model),
                    error_type: attempt.error_type(),
                    seconds: attempt.total_ms / 1e3,
                });
            }
            attempt.failure = attempt.failure.take().map(cut);
            attempt.reason = attempt.reason.take().map(cut);
        })
    }
}

/// What vendors keep of a trace. What is too long is left out, as the standard allows.
pub(super) fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let said = headers.get_all(TRACESTATE).iter();
    let parts: Vec<&str> = said.filter_map(|value| value.to_str().ok()).collect();
    let state = parts.join(",");
    (!state.is_empty() && state.len() <= TRACE_STATE_BYTES_MAX).then(|| state.into())
}

/// As OpenTelemetry's conventions write it.
pub(super) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}
