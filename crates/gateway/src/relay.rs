//! Sends a request to an upstream and the answer back, bytes untouched.
//!
//! Nothing is tried twice, with one exception: a pooled connection that closes before anything of the request was
//! written. A POST that was written may have been obeyed.

mod body;
mod event;
mod fetch;
mod head;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use base::ErrorKind;
use http::request::Parts;
use http::{Request, Response};
use protocol::ApiError;
use telemetry::Stage;
use tokio::time::timeout;

pub(crate) use body::{Cut, Relayed};
pub(crate) use fetch::fetch;

use crate::body::Payload;
use crate::exchange::Exchange;
use crate::grpc;
use crate::metrics::UpstreamFault;
use crate::reply::{Failure, Reply};
use crate::upstream::{Connection, Incoming, ReceiveError, RequestBody, SendError, Upstream, Via};

/// What is relayed: the client's own head and its body.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: Parts,
    /// [`RequestBody::again`] says whether there can be a second attempt.
    pub(crate) body: RequestBody,
    pub(crate) via: Via,
    /// Whether the `Authorization` is a key of ours, which no upstream may see.
    pub(crate) ours_authorized: bool,
}

pub(crate) async fn relay(
    exchange: &mut Exchange,
    upstream: &Arc<Upstream>,
    outgoing: Outgoing,
) -> Result<Reply, Failure> {
    let in_flight = InFlight::enter(upstream);
    let via = outgoing.via;
    let request = head::request(exchange, upstream, outgoing)?;
    let sent_at = exchange.gateway.shared().clock.now();
    let called = call(exchange, upstream, (request, via)).await;
    let failed = called
        .as_ref()
        .map_or(true, |(_, answer)| answer.status().is_server_error());
    measure(exchange, upstream, sent_at, failed);
    let (connection, response) = called?;
    exchange.mark(Stage::Upstream);
    // The request is sent and forgotten; its answer may go on for long.
    exchange.body_held = None;
    let (head, incoming) = response.into_parts();
    let head = head::response(head, exchange.id.as_str());
    if via == Via::Grpc && !grpc::asked(&head.headers) {
        return Err(no_grpc(upstream, &head).into());
    }
    let mut relayed = Relayed::new(
        exchange,
        incoming,
        &head,
        body::Source {
            upstream: Arc::clone(upstream),
            connection,
            _in_flight: in_flight,
        },
    );
    let has_body = poll_fn(|cx| Poll::Ready(relayed.has_body(cx))).await;
    let payload = if has_body {
        Payload::Relayed(Box::new(relayed))
    } else {
        Payload::Empty
    };
    // An answer without messages has its status in the head.
    let status = grpc::status(&head.headers).filter(|_| via == Via::Grpc);
    let mut reply = Reply::from(Response::from_parts(head, payload));
    reply.counted_as = status.map(protocol::status::http_of_grpc);
    Ok(reply)
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

/// Remembers how long the caller waited, for an answer or for the want of one.
fn measure(exchange: &Exchange, upstream: &Upstream, sent_at: Instant, failed: bool) {
    let shared = exchange.gateway.shared();
    let took = shared.clock.now().saturating_duration_since(sent_at);
    let took_us = took.as_secs_f32() * 1e6;
    let meter = &upstream.live.meter;
    if failed {
        meter.failed(took_us, shared.now_ms());
    } else {
        meter.answered(took_us, shared.now_ms());
    }
}

/// An answer's head, and the connection that its body comes over.
async fn call(
    exchange: &mut Exchange,
    upstream: &Arc<Upstream>,
    (mut request, via): (Request<RequestBody>, Via),
) -> Result<(Connection, Response<Incoming>), Failure> {
    exchange.doing = Stage::Connect;
    let now = exchange.gateway.shared().clock.now();
    let mut pooled = upstream.idle(via, now).await;
    loop {
        let (mut connection, may_be_stale) = match pooled.take() {
            Some(connection) => (connection, true),
            None => (open(exchange, upstream, via).await?, false),
        };
        exchange.mark(Stage::Connect);
        exchange.doing = Stage::Upstream;
        let wait = silence(exchange, upstream).min(exchange.time_left());
        let Ok(sent) = timeout(wait, connection.send(request)).await else {
            fault(exchange, upstream, UpstreamFault::timeout);
            return Err(no_answer_in(upstream, wait).into());
        };
        match sent {
            Ok(response) => return Ok((connection, response)),
            Err(SendError::Unsent(unsent)) if may_be_stale => request = *unsent,
            Err(SendError::Body(why)) => return Err(why.into()),
            Err(SendError::Unsent(_) | SendError::Refused) => {
                fault(exchange, upstream, UpstreamFault::no_answer);
                let message = format!("upstream `{}` closed the connection", upstream.name);
                return Err(bad_upstream(message).into());
            }
            Err(SendError::Failed(error)) => {
                fault(exchange, upstream, UpstreamFault::no_answer);
                tracing::debug!(upstream = %upstream.name, error = base::chain(&error), "no answer");
                return Err(broken_answer(upstream, &error).into());
            }
        }
    }
}

async fn open(
    exchange: &Exchange,
    upstream: &Arc<Upstream>,
    via: Via,
) -> Result<Connection, Failure> {
    let limit = upstream.connect_timeout().min(exchange.time_left());
    let tasks = &exchange.gateway.shared().tasks;
    match timeout(limit, upstream.open(via, tasks)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            fault(exchange, upstream, UpstreamFault::connect);
            let reason = base::chain(&error);
            let message = format!("upstream `{}` is not reachable: {reason}", upstream.name);
            Err(bad_upstream(message).into())
        }
        Err(_elapsed) => {
            fault(exchange, upstream, UpstreamFault::connect);
            let message = format!(
                "upstream `{}` accepted no connection within {} ms",
                upstream.name,
                limit.as_millis()
            );
            Err(ApiError::new(ErrorKind::Timeout, message)
                .with_code("upstream_timeout")
                .into())
        }
    }
}

/// The longest wait for the next part of an answer: the caller's or the upstream's, whichever is shorter.
fn silence(exchange: &Exchange, upstream: &Upstream) -> Duration {
    let configured = upstream.idle_timeout();
    exchange
        .patience
        .silence
        .map_or(configured, |said| said.min(configured))
}

fn fault(exchange: &Exchange, upstream: &Upstream, kind: UpstreamFault) {
    let metrics = &exchange.gateway.shared().metrics;
    metrics.upstream_error(&upstream.name, kind);
}

fn no_answer_in(upstream: &Upstream, wait: Duration) -> ApiError {
    let message = format!(
        "upstream `{}` did not answer within {} ms",
        upstream.name,
        wait.as_millis()
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

fn bad_upstream(message: String) -> ApiError {
    ApiError::new(ErrorKind::BadUpstream, message).with_code("upstream_error")
}

/// A request's place in an upstream's count, given up when dropped.
#[derive(Debug)]
struct InFlight(Arc<Upstream>);

impl InFlight {
    fn enter(upstream: &Arc<Upstream>) -> Self {
        upstream.live.meter.enter();
        Self(Arc::clone(upstream))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.live.meter.leave();
    }
}
