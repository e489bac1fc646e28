use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use protocol::openai::{Resume, comparable, resumed};
use protocol::resource::{Continuation, ReplayRule, UpstreamKind};
use routing::retry::{End, Replay, again, refused};
use routing::{Budget, Caller};

use super::attempt::{Answered, Fault, Place, attempt};
use super::chunks::{Chunks, GoingOn};
use super::head;
use super::race::{About, Race};
use super::retry_after;
use super::too_long::looked_at;
use super::{Outgoing, silence};
use crate::admission;
use crate::exchange::Exchange;
use crate::operation::Operation;
use crate::pick::{self, Local, Placing, RequestFacts, Running};
use crate::reply::Failure;
use crate::snapshot::{OnFailure, Snapshot, Target};
use crate::upstream::{RequestBody, Upstream, Wire};

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
    /// Whether refusals are read, for somebody is there for what is too long for others.
    looks: bool,
    /// Whether the request is longer than the context of somebody who was asked.
    longer: bool,
    /// In the upstream to ask next, where only so many may be.
    next_place: Option<admission::Place>,
    /// Whether the budget refused an attempt.
    pub(super) spent: bool,
    /// After so long without an answer another is asked as well.
    patience: Option<Duration>,
    /// When the caller stops waiting for a first byte, and how long that was from the start.
    pub(super) answer_by: Instant,
    wait: Duration,
}

/// What another upstream was asked for in the middle of an answer.
#[derive(Debug)]
pub(super) struct Rescue {
    pub(super) upstream: Arc<Upstream>,
    pub(super) going_on: GoingOn,
}

/// It, how long it is waited for, and its attempt.
pub(super) type Asked = (
    Rescue,
    Instant,
    Pin<Box<dyn Future<Output = Result<Answered, Fault>> + Send>>,
);

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
            looks: group.has_longer() && exchange.operation.wire() != Wire::Oip,
            longer: false,
            next_place: None,
            spent: false,
            patience: patience(&rules, wait).filter(|_| replay == Replay::Safe),
            answer_by: began + wait,
            wait,
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
        exchange.attempt_begins(upstream);
        let request = head::request(exchange, upstream, outgoing)?;
        let first = exchange.permit.as_mut();
        let first = first.and_then(|permit| permit.take_place(&upstream.live.line));
        let one_of = first.or_else(|| self.next_place.take());
        let place = Place::enter(&exchange.gateway, upstream, (self.caller, one_of));
        let started_at = place.entered_at();
        let about = About {
            upstream: Arc::clone(upstream),
            started_at,
            until: (started_at + upstream.idle_timeout()).min(self.answer_by),
        };
        // What cannot be sent again is not held either.
        let looks = self.looks && self.outgoing.is_some();
        race.start(about, looked_at(place, (request, via), looks));
        Ok(())
    }

    fn attempts_max(&self) -> usize {
        usize::try_from(self.rules.retry.attempts).unwrap_or(usize::MAX)
    }

    /// Somebody to go on with a stream that stopped, and the request for it; otherwise why nobody does.
    pub(super) fn rescue(
        &mut self,
        exchange: &mut Exchange,
        chunks: &Chunks,
    ) -> Result<Asked, String> {
        if let Some(why) = chunks.opaque {
            return Err(format!("the answer cannot be continued, for {why}"));
        }
        if chunks.begun && !self.rules.rescue.streams {
            return Err("the route does not want it".to_owned());
        }
        let Some(RequestBody::Whole(body)) = self.outgoing.as_ref().map(|out| &out.body) else {
            return Err("no other upstream may be asked".to_owned());
        };
        let body = body.clone();
        if !chunks.text.is_empty() {
            let refused = |why| format!("the answer cannot be continued, for {why}");
            comparable(&body).map_err(refused)?;
        }
        let Some(upstream) = self.another(exchange, End::Silent) else {
            return Err(match self.spent {
                true => "too many requests are being asked again".to_owned(),
                false => "no other upstream is there".to_owned(),
            });
        };
        self.tried.push(Arc::clone(&upstream));
        let resumed = continuation(exchange.operation, &upstream)
            .filter(|_| !chunks.text.is_empty())
            .and_then(|how| resumed(&body, &chunks.text, chunks.pieces, how).ok());
        let rescue = Rescue {
            going_on: match &resumed {
                Some(_) => GoingOn::Continued,
                None => GoingOn::Repeated { matched: 0 },
            },
            upstream,
        };
        let body = resumed.map_or(body, Bytes::from);
        self.go(exchange, rescue, body)
            .ok_or_else(|| "the request cannot be sent".to_owned())
    }

    /// The client's own request for one that knew no other; what the client has already is compared.
    pub(super) fn repeat(
        &mut self,
        exchange: &mut Exchange,
        refused: &Rescue,
        chunks: &Chunks,
    ) -> Option<Asked> {
        if refused.going_on != GoingOn::Continued || chunks.text.is_empty() {
            return None;
        }
        let RequestBody::Whole(body) = &self.outgoing.as_ref()?.body else {
            return None;
        };
        let body = body.clone();
        let rescue = Rescue {
            going_on: GoingOn::Repeated { matched: 0 },
            upstream: Arc::clone(&refused.upstream),
        };
        self.go(exchange, rescue, body)
    }

    fn go(&mut self, exchange: &mut Exchange, rescue: Rescue, body: Bytes) -> Option<Asked> {
        let mut outgoing = self.outgoing.as_ref()?.again()?;
        outgoing.body = RequestBody::Whole(body);
        let via = outgoing.via;
        exchange.attempt_begins(&rescue.upstream);
        let request = head::request(exchange, &rescue.upstream, outgoing).ok()?;
        let line = &rescue.upstream.live.line;
        let counts = self.snapshot.places && exchange.permit.is_some();
        let one_of = self.next_place.take();
        let one_of = one_of.or_else(|| line.enter().filter(|_| counts));
        let place = Place::enter(&exchange.gateway, &rescue.upstream, (self.caller, one_of));
        let until = place.entered_at() + silence(exchange, &rescue.upstream);
        Some((rescue, until, Box::pin(attempt(place, (request, via)))))
    }

    /// An upstream that asks for a pause is given one.
    pub(super) fn note_refusal(&self, exchange: &mut Exchange, answered: &Answered) {
        let (status, upstream) = (answered.status(), &answered.place.upstream);
        let for_all = status != 429 || upstream.spec.api_key.is_some() || !self.shows_key;
        if refused(status) && for_all {
            let shared = exchange.gateway.shared();
            let headers = answered.response.headers();
            let wait = retry_after::wanted(headers, shared.clock.wall());
            upstream.live.health.hold(shared.clock.now(), wait);
        }
    }

    /// After how long a silence another is asked as well: before the first word as for any answer, then as the route says.
    pub(super) fn stall(&self, begun: bool) -> Option<Duration> {
        if !begun {
            return self.patience();
        }
        let stall = Duration::from_millis(self.rules.rescue.stall_ms);
        (!stall.is_zero() && self.rules.rescue.streams).then(|| stall.min(self.wait / 3))
    }

    /// Whether somebody else could go on with an answer that stops.
    pub(super) fn may_rescue(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Whom to ask after an attempt ended so, if the law, the budget and the route have anybody.
    pub(super) fn another(&mut self, exchange: &mut Exchange, end: End) -> Option<Arc<Upstream>> {
        self.longer |= end == End::TooLong;
        if self.outgoing.is_none()
            || self.tried.len() >= self.attempts_max()
            || !again(end, self.replay)
        {
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
            longer: self.longer,
            tried: &self.tried,
            keeper: exchange.keeper(),
        };
        // Nobody stands in line for another attempt: those who wait have had none.
        let counts = self.snapshot.places && exchange.permit.is_some();
        let picked = if counts {
            pick::pick(&self.snapshot, &facts, &Placing::new(running)).ok()?
        } else {
            pick::pick(&self.snapshot, &facts, &running).ok()?
        };
        let Target::Upstream(upstream) = &picked.target else {
            return None;
        };
        let upstream = Arc::clone(upstream);
        self.next_place = if counts {
            Some(upstream.live.line.enter()?)
        } else {
            None
        };
        if !self.budget.spend() {
            self.spent = true;
            self.next_place = None;
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

/// How an upstream of this kind is told to go on. A completion goes on by itself; a chat only where the server is known to,
/// for another would begin a new answer and call it a continuation.
fn continuation(operation: Operation, upstream: &Upstream) -> Option<Resume> {
    let told = match (upstream.spec.continuation, upstream.spec.kind) {
        (Continuation::None, _) => return None,
        (Continuation::Prefill, _) => Some(Resume::Prefill),
        (Continuation::ContinueFinalMessage, _)
        | (Continuation::Auto, UpstreamKind::Vllm | UpstreamKind::Sglang | UpstreamKind::Kapok) => {
            Some(Resume::ContinueFinalMessage)
        }
        (Continuation::Auto, _) => None,
    };
    if operation == Operation::Completions {
        return Some(Resume::Prompt);
    }
    told
}
