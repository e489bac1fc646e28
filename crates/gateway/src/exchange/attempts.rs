use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::resource::UpstreamKind;
use routing::Verdict;

use crate::metrics::provider;
use crate::pick::Decision;
use crate::upstream::Upstream;

/// The upstreams that a request was sent to, in order.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Vec<Attempt>);

#[derive(Debug)]
struct Attempt {
    upstream: Arc<Upstream>,
    /// What it calls the model, if not as the client does.
    model: Option<Arc<str>>,
    /// None while it is the request's latest.
    decision: Option<Box<Decision>>,
    started: Instant,
    connected: Option<Instant>,
    first_byte: Option<Instant>,
    ended: Option<Instant>,
    status: Option<u16>,
    failure: Option<String>,
}

/// How the request ended, for the attempts that nothing else is known of.
pub(crate) struct Outcome<'a> {
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) complete: bool,
    pub(crate) error: Option<&'a str>,
}

impl Attempts {
    pub(crate) fn begin(
        &mut self,
        upstream: &Arc<Upstream>,
        model: Option<Arc<str>>,
        now: Instant,
    ) {
        // Most requests have one.
        self.0.reserve_exact(1);
        self.0.push(Attempt {
            upstream: Arc::clone(upstream),
            model,
            decision: None,
            started: now,
            connected: None,
            first_byte: None,
            ended: None,
            status: None,
            failure: None,
        });
    }

    /// The number of the latest, from 1 on.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Another decision was made; this one led to the latest attempt.
    pub(crate) fn decided_before(&mut self, decision: Option<Box<Decision>>) {
        if let Some(latest) = self.0.last_mut() {
            latest.decision = decision;
        }
    }

    pub(crate) fn connected(&mut self, upstream: &Arc<str>, at: Option<Instant>) {
        if let Some(attempt) = self.find(upstream) {
            attempt.connected = at;
        }
    }

    /// The answer's head came.
    pub(crate) fn answered(&mut self, upstream: &Arc<str>, status: u16, at: Instant) {
        if let Some(attempt) = self.find(upstream) {
            attempt.status = Some(status);
            attempt.first_byte = Some(at);
        }
    }

    pub(crate) fn passed_over(&mut self, upstream: &Arc<str>, why: &str, now: Instant) {
        if let Some(attempt) = self.find(upstream) {
            attempt.ended = Some(now);
            attempt.failure = Some(why.to_owned());
        }
    }

    fn find(&mut self, upstream: &Arc<str>) -> Option<&mut Attempt> {
        let mut latest_first = self.0.iter_mut().rev();
        latest_first.find(|attempt| Arc::ptr_eq(&attempt.upstream.name, upstream))
    }

    /// Who was asked and did not answer, and how that went.
    pub(crate) fn before(&self) -> String {
        let mut text = String::new();
        for attempt in &self.0 {
            if let Some(why) = &attempt.failure {
                let name = &attempt.upstream.name;
                text.push_str(&format!("`{name}` was asked before: {why}; "));
            }
        }
        text
    }

    /// What kind of server answered; none if nobody did.
    pub(crate) fn answered_by(&self) -> Option<UpstreamKind> {
        let mut latest_first = self.0.iter().rev();
        let answered = latest_first.find(|attempt| attempt.status.is_some())?;
        Some(answered.upstream.spec.kind)
    }

    /// For `kapok explain`. `latest` is the request's latest decision. `each` sees every attempt and its upstream.
    pub(crate) fn told(
        self,
        latest: Option<&Decision>,
        ending: &Outcome<'_>,
        mut each: impl FnMut(&mut telemetry::Attempt, &Upstream),
    ) -> Vec<telemetry::Attempt> {
        let last = self.0.len().saturating_sub(1);
        let answered = self.0.iter().any(|attempt| attempt.status.is_some());
        let attempts = self.0.into_iter().enumerate();
        attempts
            .map(|(index, mut attempt)| {
                let own = attempt.decision.take();
                let own = own.as_deref();
                let reason = own.map(ToString::to_string);
                let decision = own.or_else(|| latest.filter(|_| index == last));
                let upstream = Arc::clone(&attempt.upstream);
                let mut told = attempt.told(reason, decision, (ending, answered));
                each(&mut told, &upstream);
                told
            })
            .collect()
    }
}

impl Attempt {
    fn told(
        self,
        reason: Option<String>,
        decision: Option<&Decision>,
        (ending, answered): (&Outcome<'_>, bool),
    ) -> telemetry::Attempt {
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let ended = self.ended.unwrap_or(ending.ended);
        let failure = self.failure.or_else(|| match (self.status, ending) {
            (_, Outcome { complete: true, .. }) if self.status.is_some() => None,
            (None, _) if answered => Some("given up when another had answered".to_owned()),
            (_, Outcome { error, .. }) => Some(error.unwrap_or("the client left").to_owned()),
        });
        telemetry::Attempt {
            started_ms: millis(since(ending.started, self.started)),
            connect_ms: self.connected.map(|at| millis(since(self.started, at))),
            first_byte_ms: self
                .connected
                .zip(self.first_byte)
                .map(|(from, at)| millis(since(from, at))),
            total_ms: millis(since(self.started, ended)),
            upstream: Arc::clone(&self.upstream.name),
            server: Arc::clone(&self.upstream.address.host),
            port: self.upstream.address.port,
            provider: provider(self.upstream.spec.kind),
            model: self.model,
            span_id: [0; 8],
            status: self.status,
            failure,
            reason,
            rule: decision.map_or("", |decision| decision.rule),
            unit: decision.map_or("", |decision| decision.unit),
            candidates: decision.map_or_else(Vec::new, candidates),
        }
    }
}

fn candidates(decision: &Decision) -> Vec<telemetry::Candidate> {
    let seen = decision.candidates.iter().flatten();
    seen.map(|candidate| telemetry::Candidate {
        upstream: Arc::clone(&candidate.upstream),
        score: (candidate.verdict != Verdict::Unusable).then_some(candidate.score),
        verdict: match candidate.verdict {
            Verdict::Chosen => "chosen",
            Verdict::Worse => "worse",
            Verdict::Unusable => "unusable",
            Verdict::Overloaded => "overloaded",
        },
    })
    .collect()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
