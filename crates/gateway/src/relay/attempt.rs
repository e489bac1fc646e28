use std::sync::Arc;
use std::time::{Duration, Instant};

use base::ErrorKind;
use http::{Request, Response};
use protocol::ApiError;
use protocol::status::http_of_grpc;
use routing::Caller;
use routing::retry::{Blame, End, blame};
use tokio::time::timeout;

use super::too_long::Early;
use crate::admission;
use crate::gateway::Gateway;
use crate::grpc;
use crate::metrics::UpstreamFault;
use crate::upstream::{Connection, ReceiveError, RequestBody, SendError, Upstream, Via};

/// A request's place at an upstream: in its count while this lives, and in its health by how it ended. Dropped without a
/// word it was given up, which says nothing of the upstream.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) gateway: Gateway,
    pub(super) upstream: Arc<Upstream>,
    caller: Caller,
    entered_at: Instant,
    judged: bool,
    /// Where only so many may be: this is one of them.
    one_of: Option<admission::Place>,
}

impl Place {
    pub(super) fn enter(
        gateway: &Gateway,
        upstream: &Arc<Upstream>,
        (caller, one_of): (Caller, Option<admission::Place>),
    ) -> Self {
        let now = gateway.shared().clock.now();
        upstream.live.meter.enter();
        upstream.live.health.entered(now);
        Self {
            gateway: gateway.clone(),
            upstream: Arc::clone(upstream),
            caller,
            entered_at: now,
            judged: false,
            one_of,
        }
    }

    pub(super) fn entered_at(&self) -> Instant {
        self.entered_at
    }

    /// The answer's first byte came, or the end without a good one. Returns when.
    pub(super) fn measure(&self, end: End) -> Instant {
        let shared = self.gateway.shared();
        let now = shared.clock.now();
        let took = now.saturating_duration_since(self.entered_at);
        let took_us = took.as_secs_f32() * 1e6;
        let meter = &self.upstream.live.meter;
        if blame(end) == Blame::Upstream {
            meter.failed(took_us, shared.ms_at(now));
        } else {
            meter.answered(took_us, shared.ms_at(now));
        }
        now
    }

    /// How it ended, for the upstream's health; the first word counts.
    pub(super) fn judge(&mut self, end: End) {
        if !self.judged {
            self.judge_at(end, self.gateway.shared().clock.now());
        }
    }

    /// [`Place::judge`], of what was seen at `now`.
    pub(super) fn judge_at(&mut self, end: End, now: Instant) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        if let Some(place) = &mut self.one_of {
            place.ended(match end {
                End::Status(200..300) => Some(admission::Ended::Done),
                End::GivenUp => Some(admission::Ended::Cut),
                _ => None,
            });
        }
        // No request can cause that there is no connection.
        let caller = (end != End::Unsent).then_some(self.caller);
        let upstream = &self.upstream;
        let spec = &upstream.spec.outlier;
        if upstream.live.health.ended(blame(end), caller, now, spec) {
            tracing::warn!(upstream = %upstream.name, "fails too often and is left alone for a while");
        }
    }

    /// It failed in a way that is counted by its kind.
    pub(super) fn fault(&mut self, end: End, kind: UpstreamFault) {
        let metrics = &self.gateway.shared().metrics;
        metrics.upstream_error(&self.upstream.name, kind);
        self.judge(end);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.upstream.live.meter.leave();
        self.judge(End::GivenUp);
    }
}

/// An answer's head, and where its body comes from.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) place: Place,
    pub(super) connection: Connection,
    pub(super) response: Response<()>,
    pub(super) connected_at: Instant,
    /// When its head came.
    pub(super) came_at: Instant,
    pub(super) via: Via,
    /// What of its body was read already; none of most.
    pub(super) early: Option<Box<Early>>,
}

impl Answered {
    /// What the call came to, in HTTP's words: over gRPC an answer without messages has its status in the head.
    pub(super) fn status(&self) -> u16 {
        let status = self.response.status().as_u16();
        match grpc::status(self.response.headers()) {
            Some(code) if status == 200 && self.via == Via::Grpc => http_of_grpc(code),
            _ => status,
        }
    }

    pub(super) fn end(&self) -> End {
        if self.too_long() {
            End::TooLong
        } else {
            End::Status(self.status())
        }
    }

    /// Whether it says that the request is longer than its model's context.
    pub(super) fn too_long(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.too_long)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) end: End,
    pub(super) error: ApiError,
    /// None if there was no connection.
    pub(super) connected_at: Option<Instant>,
}

/// Sends a request to one upstream and waits for the answer's head. Dropping it gives up the request; whoever waits says
/// how long.
///
/// Nothing is sent twice, except what a pooled connection did not take because it had been closed.
pub(super) async fn attempt(
    mut place: Place,
    (mut request, via): (Box<Request<RequestBody>>, Via),
) -> Result<Answered, Fault> {
    let gateway = place.gateway.clone();
    let upstream = Arc::clone(&place.upstream);
    let clock = &gateway.shared().clock;
    let mut pooled = upstream.idle(via, place.entered_at).await;
    loop {
        let (mut connection, may_be_stale) = match pooled.take() {
            Some(connection) => (connection, true),
            // Rare, and larger than all the rest of an attempt.
            None => Box::pin(open(&mut place, via)).await?,
        };
        let connected_at = clock.now();
        let error = match connection.send(request).await {
            Ok(response) => {
                return Ok(Answered {
                    came_at: place.measure(End::Status(response.status().as_u16())),
                    place,
                    connection,
                    response,
                    connected_at,
                    via,
                    early: None,
                });
            }
            Err(SendError::Unsent(unsent)) if may_be_stale => {
                request = unsent;
                continue;
            }
            Err(SendError::Body(why)) => {
                return Err(Fault {
                    end: End::GivenUp,
                    error: why,
                    connected_at: Some(connected_at),
                });
            }
            Err(error) => error,
        };
        let (end, error) = unanswered(&upstream, error);
        place.measure(end);
        place.fault(end, UpstreamFault::no_answer);
        return Err(Fault {
            end,
            error,
            connected_at: Some(connected_at),
        });
    }
}

fn unanswered(upstream: &Upstream, error: SendError) -> (End, ApiError) {
    match error {
        SendError::Body(why) => (End::GivenUp, why),
        SendError::Unsent(_) | SendError::Refused => {
            let message = format!("upstream `{}` closed the connection", upstream.name);
            (End::Unsent, bad_upstream(message))
        }
        SendError::Failed(error) => {
            tracing::debug!(upstream = %upstream.name, error = base::chain(&error), "no answer");
            (End::Lost, broken_answer(upstream, &error))
        }
    }
}

async fn open(place: &mut Place, via: Via) -> Result<(Connection, bool), Fault> {
    let gateway = place.gateway.clone();
    let upstream = Arc::clone(&place.upstream);
    let limit = upstream.connect_timeout();
    let with = (&gateway.shared().tasks, place.entered_at);
    let opened = timeout(limit, upstream.open(via, with)).await;
    let error = match opened {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(error)) => {
            let reason = base::chain(&error);
            bad_upstream(format!(
                "upstream `{}` is not reachable: {reason}",
                upstream.name
            ))
        }
        Err(_elapsed) => {
            let message = format!(
                "upstream `{}` accepted no connection within {} ms",
                upstream.name,
                limit.as_millis()
            );
            ApiError::new(ErrorKind::Timeout, message).with_code("upstream_timeout")
        }
    };
    place.measure(End::Unsent);
    place.fault(End::Unsent, UpstreamFault::connect);
    Err(Fault {
        end: End::Unsent,
        error,
        connected_at: None,
    })
}

pub(super) fn no_answer_in(upstream: &Upstream, wait: Duration) -> ApiError {
    let message = format!(
        "upstream `{}` did not answer within {} ms",
        upstream.name,
        // To the nearest: a limit of 20 ms from the request's start is 19.99 ms from the attempt's.
        (wait.as_micros() + 500) / 1000
    );
    ApiError::new(ErrorKind::Timeout, message).with_code("upstream_timeout")
}

fn broken_answer(upstream: &Upstream, error: &ReceiveError) -> ApiError {
    let name = &upstream.name;
    bad_upstream(if error.is_parse() {
        format!("upstream `{name}` answered with something that is not HTTP")
    } else {
        format!("upstream `{name}` closed the connection without answering")
    })
}

pub(super) fn bad_upstream(message: String) -> ApiError {
    ApiError::new(ErrorKind::BadUpstream, message).with_code("upstream_error")
}

/// Whether an end says that the upstream works.
pub(super) fn praised(status: u16) -> bool {
    blame(End::Status(status)) == Blame::Praise
}
