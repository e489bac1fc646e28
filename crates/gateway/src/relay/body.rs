use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use base::{Deadline, ErrorKind};
use bytes::Bytes;
use http::response;
use http_body::{Frame, SizeHint};
use protocol::ApiError;
use routing::retry::End;

use super::attempt::{Place, bad_upstream};
use super::event::EventStream;
use super::silence;
use super::too_long::Early;
use crate::exchange::Exchange;
use crate::metrics::UpstreamFault;
use crate::upstream::{Connection, ReceiveError, Via};

/// Why an answer stops before its end. hyper closes the client's connection on it, which is how HTTP says "cut".
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cut(String);

impl Cut {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Where a relayed answer comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) place: Place,
    pub(super) connection: Connection,
    pub(super) via: Via,
    /// For its upstream's health once the answer is whole.
    pub(super) status: u16,
    /// What was read of it before.
    pub(super) early: Option<Box<Early>>,
}

impl Source {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        if let Some(part) = self
            .early
            .as_mut()
            .and_then(|early| early.parts.pop_front())
        {
            return Poll::Ready(Some(Ok(part)));
        }
        self.connection.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let all_passed = self
            .early
            .as_ref()
            .is_none_or(|early| early.parts.is_empty());
        all_passed && self.connection.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.connection.size_hint();
        if let Some(early) = &self.early {
            let bytes = early.bytes();
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + bytes);
            }
            hint.set_lower(hint.lower() + bytes);
        }
        hint
    }

    /// The answer is whole: its connection may serve the next request.
    pub(super) fn release(mut self, latest: Instant, cx: &mut Context<'_>) {
        self.place.judge_at(End::Status(self.status), latest);
        let live = &self.place.upstream.live;
        self.connection.release(live, latest, cx);
    }
}

/// An upstream's answer on its way through. Dropping it closes the upstream's connection, unless the answer had ended.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// None once the answer has ended, well or not.
    source: Option<Source>,
    events: Option<EventStream>,
    /// Whether it is a gRPC call's, which says in its trailers how it ended.
    grpc: bool,
    silence: Duration,
    /// Only if the caller named one: by default a stream may go on for as long as it goes on.
    deadline: Option<Deadline>,
    /// When the last part came.
    latest: Instant,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

impl Relayed {
    pub(super) fn new(exchange: &Exchange, head: &response::Parts, source: Source) -> Self {
        Self {
            events: EventStream::of(head, exchange.operation),
            grpc: source.via == Via::Grpc,
            silence: silence(exchange, &source.place.upstream),
            deadline: exchange.patience.total.map(|_| exchange.deadline),
            // Its head was booked just now.
            latest: exchange.ledger.last(),
            source: Some(source),
        }
    }

    /// False if the answer consists of its head; its connection is free again then.
    pub(super) fn has_body(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_end_stream() {
            self.finish(cx);
        }
        self.source.is_some()
    }

    pub(crate) fn ended(&self) -> bool {
        self.source.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let source = self.source.as_ref();
        source.map_or_else(SizeHint::default, Source::size_hint)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(Source::is_end_stream)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>, exchange: &mut Exchange) -> Polled {
        match self.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.latest = exchange.gateway.shared().clock.now();
                if let (Some(events), Some(data)) = (&mut self.events, frame.data_ref()) {
                    events.note(data);
                    exchange.generation.part(self.latest);
                }
                if self.grpc {
                    return self.pass_call(cx, frame, exchange);
                }
                // With a known length the end is known with the last byte, and nobody asks again.
                if self.events.is_none() && self.is_end_stream() {
                    self.finish(cx);
                    exchange.complete = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) if self.grpc => {
                self.cut(exchange, (End::Broken, UpstreamFault::cut), |name| {
                    bad_upstream(format!("upstream `{name}` ended the call without a status"))
                })
            }
            Poll::Ready(None) if self.events.as_ref().is_none_or(EventStream::finished) => {
                self.finish(cx);
                exchange.complete = true;
                Poll::Ready(None)
            }
            Poll::Ready(None) => self.cut(exchange, (End::Broken, UpstreamFault::cut), |name| {
                bad_upstream(format!(
                    "upstream `{name}` ended the stream before its last event"
                ))
            }),
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(error = base::chain(&error), "answer cut");
                let source = self.source.as_ref();
                if let Some(why) = source.and_then(|source| source.connection.broken()) {
                    return self.cut(exchange, (End::GivenUp, UpstreamFault::cut), |_| why);
                }
                self.cut(exchange, (End::Broken, UpstreamFault::cut), |name| {
                    bad_upstream(format!(
                        "upstream `{name}` stopped in the middle of its answer"
                    ))
                })
            }
            Poll::Pending => self.poll_patience(cx, exchange),
        }
    }

    /// A part of a gRPC call's answer: its trailers are the end, and say how the call went.
    fn pass_call(
        &mut self,
        cx: &mut Context<'_>,
        frame: Frame<Bytes>,
        exchange: &mut Exchange,
    ) -> Polled {
        if let Some(trailers) = frame.trailers_ref() {
            let Some(code) = crate::grpc::status(trailers) else {
                return self.cut(exchange, (End::Broken, UpstreamFault::cut), |name| {
                    bad_upstream(format!("upstream `{name}` ended the call without a status"))
                });
            };
            self.finish(cx);
            exchange.complete = true;
            exchange.call_ended(code, trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match &mut self.source {
            Some(source) => source.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    /// Nothing has come: is it too late yet?
    fn poll_patience(&mut self, cx: &mut Context<'_>, exchange: &mut Exchange) -> Polled {
        let quiet_until = self.latest + self.silence;
        let deadline = self.deadline.map(Deadline::instant);
        let due = deadline.map_or(quiet_until, |deadline| deadline.min(quiet_until));
        ready!(exchange.alarm.poll(cx, due));
        let late = deadline == Some(due);
        let silence_ms = self.silence.as_millis();
        let end = if late { End::GivenUp } else { End::Broken };
        self.cut(exchange, (end, UpstreamFault::timeout), |name| {
            let message = if late {
                format!("the deadline passed while upstream `{name}` was answering")
            } else {
                format!("upstream `{name}` sent nothing for {silence_ms} ms")
            };
            ApiError::new(ErrorKind::Timeout, message).with_code("upstream_timeout")
        })
    }

    /// The answer is whole: its connection may serve the next request.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(source) = self.source.take() {
            source.release(self.latest, cx);
        }
    }

    /// The answer is not whole, and must not look as if it were.
    fn cut(
        &mut self,
        exchange: &mut Exchange,
        (end, kind): (End, UpstreamFault),
        error: impl FnOnce(&str) -> ApiError,
    ) -> Polled {
        let Some(mut source) = self.source.take() else {
            return Poll::Ready(None);
        };
        let error = error(&source.place.upstream.name);
        source.place.fault(end, kind);
        exchange.error = Some(error.message.clone());
        if self.grpc {
            exchange.status = protocol::status::of(error.kind).http;
        }
        Poll::Ready(Some(match &self.events {
            _ if self.grpc => Ok(Frame::trailers(crate::grpc::trailers(&error))),
            Some(events) => Ok(Frame::data(events.error(&error))),
            None => Err(Cut(error.message)),
        }))
    }
}
