use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use protocol::resource::ReplayRule;
use routing::retry::{End, Replay, again};
use routing::{Budget, Caller};

use super::Outgoing;
use super::attempt::{Place, attempt};
use super::head;
use super::race::{About, Race};
use crate::exchange::Exchange;
use crate::operation::Operation;
use crate::pick::{self, Local, RequestFacts, Running};
use crate::reply::Failure;
use crate::snapshot::{OnFailure, Snapshot, Target};
use crate::upstream::Upstream;

/// A caller whose own limit is shorter than this and passes has learnt nothing of the upstream.
const SILENCE_TELLS: Duration = Duration::from_secs(10);

/// One request's way from upstream to upstream: whom it has seen, whom it may still see, and until when.
#[derive(Debug)]
pub(super) struct Course {
    snapshot: Arc<Snapshot>,
    pub(super) rules: OnFailure,
    budget: Arc<Budget>,
    replay: Replay,
    caller: Caller,
    /// Whether upstreams without a key of ours see the client's.
    shows_key: bool,
    /// None once nobody else can be asked.
    outgoing: Option<Outgoing>,
    tried: Vec<Arc<Upstream>>,
    /// Whether the budget refused an attempt.
    pub(super) spent: bool,
    /// After so long without an answer another is asked as well.
    patience: Option<Duration>,
    /// When the caller stops waiting for a first byte.
    pub(super) answer_by: Instant,
}

impl Course {
    pub(super) fn new(
        exchange: &Exchange,
        snapshot: &Arc<Snapshot>,
        outgoing: Outgoing,
        began: Instant,
    ) -> Self {
        let group = snapshot.group(&exchange.model);
        let rules = group.plan.on_failure;
        let replay = match rules.retry.replay {
            ReplayRule::Always => Replay::Safe,
            ReplayRule::Never => Replay::Unsafe,
            ReplayRule::Auto => replay(exchange.operation, &outgoing),
        };
        let left = exchange.deadline.left(began);
        let wait = exchange
            .patience
            .silence
            .map_or(left, |said| said.min(left));
        let alone = group.upstreams().nth(1).is_none();
        let attempts = if alone { 1 } else { rules.retry.attempts };
        let caller = exchange.caller;
        Self {
            shows_key: caller != Caller::NOBODY && !outgoing.ours_authorized,
            snapshot: Arc::clone(snapshot),
            rules: OnFailure {
                retry: protocol::resource::RetrySpec {
                    attempts,
                    ..rules.retry
                },
                ..rules
            },
            budget: Arc::clone(&group.plan.budget),
            replay,
            caller,
            outgoing: Some(outgoing),
            tried: Vec::new(),
            spent: false,
            patience: patience(&rules, wait).filter(|_| replay == Replay::Safe),
            answer_by: began + wait,
        }
    }

    /// Sends the request to this upstream as well.
    pub(super) fn start(
        &mut self,
        exchange: &mut Exchange,
        upstream: &Arc<Upstream>,
        race: &mut Race,
    ) -> Result<(), Failure> {
        self.tried.push(Arc::clone(upstream));
        let may_go_on = self.tried.len() < self.attempts_max();
        let again = may_go_on
            .then(|| self.outgoing.as_ref().and_then(Outgoing::again))
            .flatten();
        let Some(outgoing) = std::mem::replace(&mut self.outgoing, again) else {
            // Whoever asks for another has asked whether there is one.
            return Ok(());
        };
        let via = outgoing.via;
        let request = head::request(exchange, upstream, outgoing)?;
        let place = Place::enter(&exchange.gateway, upstream, self.caller);
        let started_at = place.entered_at();
        let about = About {
            upstream: Arc::clone(upstream),
            started_at,
            until: (started_at + upstream.idle_timeout()).min(self.answer_by),
        };
        race.start(about, attempt(place, (request, via)));
        Ok(())
    }

    fn attempts_max(&self) -> usize {
        usize::try_from(self.rules.retry.attempts).unwrap_or(usize::MAX)
    }

    /// Whom to ask after an attempt ended so, if the law, the budget and the route have anybody.
    pub(super) fn another(&mut self, exchange: &mut Exchange, end: End) -> Option<Arc<Upstream>> {
        if self.outgoing.is_none() || !again(end, self.replay) {
            return None;
        }
        let shared = exchange.gateway.shared();
        let running = Running::at(shared, self.caller);
        let facts = RequestFacts {
            model: &exchange.model,
            wire: exchange.operation.wire(),
            // What was meant for an upstream cannot be answered here.
            local: Local::Absent,
            hints: &exchange.hints,
            tried: &self.tried,
        };
        let picked = pick::pick(&self.snapshot, &facts, &running).ok()?;
        let Target::Upstream(upstream) = &picked.target else {
            return None;
        };
        let upstream = Arc::clone(upstream);
        if !self.budget.spend() {
            self.spent = true;
            shared.metrics.budget_spent();
            return None;
        }
        exchange.chosen(picked);
        Some(upstream)
    }

    /// An answer came that is one.
    pub(super) fn earn(&self) {
        self.budget.earn();
    }

    /// How long to wait before another is asked as well.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.patience.filter(|_| self.outgoing.is_some())
    }

    /// Nobody else is asked because of silence.
    pub(super) fn be_patient(&mut self) {
        self.patience = None;
    }

    /// What silence for so long says of the upstream.
    pub(super) fn silent(&self, upstream: &Upstream, waited: Duration) -> End {
        if waited >= upstream.idle_timeout().min(SILENCE_TELLS) {
            End::Silent
        } else {
            End::GivenUp
        }
    }

    /// Whether another could have been asked after such an end: then somebody who runs may still do better.
    pub(super) fn goes_on(&self, end: End) -> bool {
        again(end, self.replay)
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    /// Whether an upstream's "too many requests" is about all of us: not if it was told the client's own key.
    pub(super) fn speaks_for_all(&self, upstream: &Upstream, status: u16) -> bool {
        status != 429 || upstream.spec.api_key.is_some() || !self.shows_key
    }
}

/// A third of what the caller waits, so that two others have as long; never less patience than a hedge was given.
fn patience(rules: &OnFailure, wait: Duration) -> Option<Duration> {
    if let Some(hedge) = rules.hedge {
        return Some(Duration::from_millis(hedge.after_ms));
    }
    let silence = Duration::from_millis(rules.retry.silence_ms);
    (!silence.is_zero()).then(|| silence.min(wait / 3))
}

/// Inference changes nothing: run twice, it is paid for twice, and that is all. A stored response, a file or a batch
/// would be there twice.
fn replay(operation: Operation, outgoing: &Outgoing) -> Replay {
    const INFERENCE: [&str; 5] = [
        "/v1/audio/",
        "/v1/images/",
        "/v1/moderations",
        "/v1/rerank",
        "/v1/score",
    ];
    let path = outgoing.head.uri.path();
    let safe = match operation {
        Operation::OpenAiOther => INFERENCE.iter().any(|start| path.starts_with(start)),
        operation => operation.is_inference(),
    };
    if safe || outgoing.head.method == Method::GET || outgoing.head.method == Method::HEAD {
        Replay::Safe
    } else {
        Replay::Unsafe
    }
}
