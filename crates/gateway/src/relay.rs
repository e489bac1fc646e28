//! Sends a request to an upstream and the answer back, bytes untouched; if that upstream does not answer, to another.
//!
//! Reading order: [`relay`], [`course`] (whom to ask, and when to stop), [`attempt`] (one upstream), [`race`] (several at
//! a time). What an end means is decided in `routing::retry`. No upstream sees a request twice.

mod attempt;
mod body;
mod chunks;
mod course;
mod event;
mod fetch;
mod head;
mod race;
pub(crate) mod retry_after;
mod talk;
mod too_long;

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use base::ErrorKind;
use http::request::Parts;
use http::{HeaderValue, Response};
use protocol::ApiError;
use routing::retry::{End, refused};
use telemetry::Stage;

pub(crate) use body::{Cut, Relayed};
pub(crate) use fetch::fetch;
pub(crate) use talk::Talk;

use attempt::{Answered, Fault, bad_upstream, no_answer_in, praised};
use course::Course;
use race::{About, Race};

use crate::body::Payload;
use crate::exchange::Exchange;
use crate::grpc;
use crate::headers::SHOULD_RETRY;
use crate::metrics::UpstreamFault;
use crate::reply::{Failure, Reply};
use crate::snapshot::Snapshot;
use crate::upstream::{RequestBody, Upstream, Via};

/// What is relayed: the client's own head and its body.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: Box<Parts>,
    /// [`RequestBody::again`] says whether there can be a second attempt.
    pub(crate) body: RequestBody,
    pub(crate) via: Via,
    /// Whether the `Authorization` is a key of ours, which no upstream may see.
    pub(crate) ours_authorized: bool,
}

impl Outgoing {
    /// The same for another attempt; none if the body is gone with the first.
    fn again(&self) -> Option<Self> {
        Some(Self {
            body: self.body.again()?,
            head: self.head.clone(),
            via: self.via,
            ours_authorized: self.ours_authorized,
        })
    }
}

/// Asks `first`, and others as long as nobody answers and the law, the budget and the route allow it.
pub(crate) async fn relay(
    exchange: &mut Exchange,
    snapshot: &Arc<Snapshot>,
    first: &Arc<Upstream>,
    outgoing: Outgoing,
) -> Result<Reply, Failure> {
    let began = exchange.gateway.shared().clock.now();
    exchange.doing = Stage::Upstream;
    let mut course = Course::new(exchange, snapshot, outgoing, began);
    let mut going = Going::default();
    course.start(exchange, first, &mut going.race)?;
    loop {
        let due = going.due(&course);
        match going.race.next(&mut exchange.alarm, due).await {
            Some((about, Ok(answered))) => {
                if let Some(answered) = going.answered(exchange, &mut course, (about, answered)) {
                    if praised(answered.status()) {
                        course.earn();
                    }
                    return reply(exchange, course, answered);
                }
            }
            Some((about, Err(fault))) => {
                exchange.mark_attempt(fault.connected_at);
                going.failed(exchange, &mut course, (about, fault));
            }
            None => going.quiet(exchange, &mut course),
        }
        if let Some(next) = going.next.take() {
            course.start(exchange, &next, &mut going.race)?;
        } else if going.race.is_empty() {
            return going.give_up(exchange, course);
        }
    }
}

/// Where a request is on its course.
#[derive(Default)]
struct Going {
    race: Race,
    /// Whom to ask now.
    next: Option<Arc<Upstream>>,
    /// A refusal, to be passed on if nobody does better.
    refusal: Option<Box<Answered>>,
    errors: Vec<ApiError>,
}

impl Going {
    /// When something has to be decided although nobody answered.
    fn due(&self, course: &Course) -> Instant {
        let limit = self.race.first_limit().unwrap_or(course.answer_by);
        let another = course.patience().zip(self.race.latest_start());
        let another = another.map_or(limit, |(patience, started)| started + patience);
        limit.min(another)
    }

    /// A head came. Returned if it is the answer; otherwise it is kept, and somebody else may be asked.
    fn answered(
        &mut self,
        exchange: &mut Exchange,
        course: &mut Course,
        (about, mut answered): (About, Answered),
    ) -> Option<Answered> {
        let (status, end) = (answered.status(), answered.end());
        let upstream = &about.upstream;
        let times = (answered.connected_at, answered.came_at);
        exchange.head_came(upstream, status, times);
        if !praised(status) {
            answered.place.judge(end);
        }
        course.note_refusal(exchange, &answered);
        self.next = course.another(exchange, end);
        let last = self.next.is_none() && (self.race.is_empty() || !course.goes_on(end));
        let first_too_long = last && !praised(status) && self.too_long();
        if last && !first_too_long {
            exchange.answered_by(upstream);
            return Some(answered);
        }
        let why = if end == End::TooLong {
            ": the request is longer than its context"
        } else {
            ""
        };
        exchange.passed_over(upstream, &format!("answered {status}{why}"));
        exchange.mark_attempt(Some(answered.connected_at));
        if first_too_long {
            let first = self.refusal.take()?;
            exchange.answered_by(&first.place.upstream);
            return Some(*first);
        }
        // "Later" tells the client more than "broken", and "too long" more than both.
        let kept = self.refusal.as_ref();
        let kept = kept
            .is_some_and(|kept| kept.too_long() || refused(kept.status()) && end != End::TooLong);
        if !kept {
            self.refusal = Some(Box::new(answered));
        }
        None
    }

    /// Whether somebody said so whose word the client gets if nobody with a larger context answers.
    fn too_long(&self) -> bool {
        self.refusal.as_deref().is_some_and(Answered::too_long)
    }

    fn failed(
        &mut self,
        exchange: &mut Exchange,
        course: &mut Course,
        (about, fault): (About, Fault),
    ) {
        let name = &about.upstream.name;
        exchange.attempts.connected(name, fault.connected_at);
        exchange.passed_over(&about.upstream, &fault.error.message);
        self.next = course.another(exchange, fault.end);
        self.errors.push(fault.error);
    }

    /// Nobody answered for so long that something has to be done: somebody is given up, or somebody else asked as well.
    fn quiet(&mut self, exchange: &mut Exchange, course: &mut Course) {
        let now = exchange.gateway.shared().clock.now();
        let Some(late) = self.race.late(now) else {
            self.next = course.another(exchange, End::Silent);
            if self.next.is_none() {
                course.be_patient();
            }
            return;
        };
        let upstream = &late.about.upstream;
        let waited = late
            .about
            .until
            .saturating_duration_since(late.about.started_at);
        let end = course.silent(upstream, waited);
        let shared = exchange.gateway.shared();
        shared
            .metrics
            .upstream_error(&upstream.name, UpstreamFault::timeout);
        let spec = &upstream.spec.outlier;
        let blame = routing::retry::blame(end);
        // Before it is dropped, which by itself says nothing of the upstream.
        upstream
            .live
            .health
            .ended(blame, Some(course.caller()), now, spec);
        exchange.mark(Stage::Upstream);
        let error = no_answer_in(upstream, waited);
        self.failed(
            exchange,
            course,
            (
                late.about.clone(),
                Fault {
                    end,
                    error,
                    connected_at: None,
                },
            ),
        );
    }

    /// Nobody answered: the client gets the refusal that tells it most.
    fn give_up(self, exchange: &mut Exchange, course: Course) -> Result<Reply, Failure> {
        if let Some(refusal) = self.refusal {
            exchange.answered_by(&Arc::clone(&refusal.place.upstream));
            return reply(exchange, course, *refusal);
        }
        let mut errors = self.errors;
        let last = errors.pop();
        let mut error = last.unwrap_or_else(|| bad_upstream("nobody was asked".to_owned()));
        errors.reverse();
        for earlier in errors {
            error.message = format!("{}; {}", earlier.message, error.message);
        }
        Err(Failure::from(error).final_if(course.spent))
    }
}

/// The answer on its way to the client.
fn reply(exchange: &mut Exchange, course: Course, answered: Answered) -> Result<Reply, Failure> {
    exchange.mark_attempt(Some(answered.connected_at));
    let status = answered.status();
    let Answered {
        place,
        connection,
        response,
        via,
        early,
        ..
    } = answered;
    let (head, ()) = response.into_parts();
    let mut head = head::response(head, exchange.id.as_str());
    exchange.keeps(head.status, &head.headers);
    if course.spent && !praised(status) {
        head.headers
            .insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if via == Via::Grpc && !grpc::asked(&head.headers) {
        return Err(no_grpc(&place.upstream, &head).into());
    }
    let source = body::Source {
        place,
        connection,
        via,
        status,
        early,
    };
    if event::can_be_rescued(&head, exchange.operation) {
        let heartbeat_ms = course.rules.rescue.heartbeat_ms;
        let course = rescuer(exchange, course);
        let talk = Talk::new(exchange, course, source, heartbeat_ms);
        let payload = Payload::Talk(Box::new(talk));
        return Ok(Response::from_parts(head, payload).into());
    }
    drop(course);
    // The request is sent and forgotten; its answer may go on for long.
    exchange.body_held = None;
    let mut relayed = Relayed::new(exchange, &head, source);
    // Nobody need be woken: whoever has the connection next polls it anew.
    let has_body = relayed.has_body(&mut Context::from_waker(Waker::noop()));
    let payload = if has_body {
        Payload::Relayed(Box::new(relayed))
    } else {
        Payload::Empty
    };
    // A gRPC answer without messages has its status in the head.
    let called = grpc::status(&head.headers).filter(|_| via == Via::Grpc);
    let mut reply = Reply::from(Response::from_parts(head, payload));
    reply.counted_as = called.map(protocol::status::http_of_grpc);
    Ok(reply)
}

/// Keeps what is needed to ask another for the rest of a stream: the request, which goes on counting as a body in memory.
/// When half of that memory is taken, streams give way to new requests and cannot be continued.
fn rescuer(exchange: &mut Exchange, course: Course) -> Option<Course> {
    let room = exchange
        .body_held
        .as_ref()
        .is_none_or(|held| held.has_room());
    if course.may_rescue() && room {
        return Some(course);
    }
    exchange.body_held = None;
    None
}

/// Something on the way answered with plain HTTP; gRPC's specification says what its status means then.
fn no_grpc(upstream: &Upstream, head: &http::response::Parts) -> ApiError {
    let status = head.status.as_u16();
    let kind = match protocol::status::kind_of_http(status) {
        ErrorKind::NotFound => ErrorKind::Unsupported,
        kind => kind,
    };
    let name = &upstream.name;
    ApiError::new(
        kind,
        format!("upstream `{name}` answered HTTP {status} without gRPC"),
    )
    .with_code("upstream_error")
}

/// The longest wait for the next part of an answer: the caller's or the upstream's, whichever is shorter.
fn silence(exchange: &Exchange, upstream: &Upstream) -> Duration {
    let configured = upstream.idle_timeout();
    exchange
        .patience
        .silence
        .map_or(configured, |said| said.min(configured))
}
