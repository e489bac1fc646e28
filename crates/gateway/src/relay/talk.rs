use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use base::{Deadline, ErrorKind};
use bytes::Bytes;
use http_body::Frame;
use protocol::ApiError;
use protocol::status::openai_body;
use routing::retry::End;

use super::Cut;
use super::attempt::{Answered, Fault, bad_upstream, praised};
use super::body::Source;
use super::chunks::{Chunks, GoingOn};
use super::course::{Course, Rescue};
use super::event::is_event_stream;
use super::silence;
use crate::exchange::Exchange;
use crate::metrics::UpstreamFault;
use crate::upstream::ReceiveError;

const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment, which event streams may have anywhere and nobody reads.
const HEARTBEAT: &[u8] = b": waiting\n\n";

/// A chat or completions stream on its way to the client. If its upstream stops in the middle, another goes on with it
/// where the request allows that; otherwise it ends with an error. Dropping it lets go of every upstream.
pub(crate) struct Talk {
    chunks: Chunks,
    now: Option<Speaker>,
    next: Option<Next>,
    /// None once nobody else is asked.
    course: Option<Course>,
    /// What went wrong first, and why nobody else went on.
    failure: Option<ApiError>,
    in_vain: Option<String>,
    deadline: Option<Deadline>,
    heartbeat: Option<Duration>,
    /// When the client last got anything.
    sent_at: Instant,
    over: bool,
}

/// The upstream whose words the client gets.
struct Speaker {
    source: Source,
    silence: Duration,
    latest: Instant,
}

/// Another that was asked to go on.
struct Next {
    rescue: Rescue,
    attempt: Pin<Box<dyn Future<Output = Result<Answered, Fault>> + Send>>,
    until: Instant,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

impl Talk {
    pub(super) fn new(
        exchange: &Exchange,
        course: Option<Course>,
        source: Source,
        heartbeat_ms: u64,
    ) -> Self {
        // Its head was booked just now.
        let now = exchange.ledger.last();
        let heartbeat = Duration::from_millis(heartbeat_ms);
        Self {
            chunks: Chunks::new(exchange.recorded()),
            next: None,
            failure: None,
            in_vain: None,
            deadline: exchange.patience.total.map(|_| exchange.deadline),
            heartbeat: (!heartbeat.is_zero()).then_some(heartbeat),
            sent_at: now,
            over: false,
            course,
            now: Some(Speaker::new(exchange, source, now)),
        }
    }

    pub(crate) fn ended(&self) -> bool {
        self.over
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>, exchange: &mut Exchange) -> Polled {
        while !self.over {
            if let Some(speaker) = &mut self.now
                && let Poll::Ready(part) = speaker.poll(cx)
            {
                if let Some(bytes) = self.heard(cx, exchange, part) {
                    return self.send(exchange, bytes);
                }
                continue;
            }
            if let Some(next) = &mut self.next {
                if let Poll::Ready(end) = next.attempt.as_mut().poll(cx) {
                    self.arrived(exchange, end);
                    continue;
                }
            } else if self.now.is_none() {
                let bytes = self.give_up(exchange);
                return self.send(exchange, bytes);
            }
            ready!(exchange.alarm.poll(cx, self.due()));
            if let Some(bytes) = self.late(exchange) {
                return self.send(exchange, bytes);
            }
        }
        Poll::Ready(None)
    }

    fn send(&mut self, exchange: &Exchange, bytes: Bytes) -> Polled {
        self.sent_at = exchange.gateway.shared().clock.now();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// A part of the stream came, or its end.
    fn heard(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        part: Option<Result<Frame<Bytes>, ReceiveError>>,
    ) -> Option<Bytes> {
        let out = match part {
            Some(Ok(frame)) => {
                let now = exchange.gateway.shared().clock.now();
                if let Some(speaker) = &mut self.now {
                    speaker.latest = now;
                }
                // It speaks again, so nobody else has to.
                self.next = None;
                let (out, broken) = self.chunks.take(frame.into_data().unwrap_or_default());
                exchange.generation.heard(now, &mut self.chunks.said);
                if let Some(why) = broken {
                    self.fail(exchange, (End::Broken, UpstreamFault::cut), why);
                }
                out
            }
            None => {
                let (out, broken) = self.chunks.rest();
                if let Some(why) = broken {
                    self.fail(exchange, (End::Broken, UpstreamFault::cut), why);
                    return Some(out).filter(|out| !out.is_empty());
                }
                return self.at_end(exchange, Some(cx), out);
            }
            Some(Err(error)) => {
                tracing::debug!(error = base::chain(&error), "answer cut");
                return self.at_end(exchange, None, Bytes::new());
            }
        };
        Some(out).filter(|out| !out.is_empty())
    }

    /// The upstream has ended the stream, orderly if there is a context to reuse its connection.
    fn at_end(
        &mut self,
        exchange: &mut Exchange,
        orderly: Option<&mut Context<'_>>,
        out: Bytes,
    ) -> Option<Bytes> {
        let chunks = &self.chunks;
        if !(chunks.done || chunks.told || (chunks.finished && !chunks.repeating())) {
            let why = match orderly {
                Some(_) => "ended the stream without [DONE]",
                None => "stopped in the middle of its answer",
            };
            self.fail(exchange, (End::Broken, UpstreamFault::cut), why);
            return Some(out).filter(|out| !out.is_empty());
        }
        // The answer is whole, and only its last word is missing.
        let add_done = !chunks.done && !chunks.told;
        exchange.complete = chunks.done || add_done;
        self.over = true;
        self.next = None;
        if let Some(mut speaker) = self.now.take() {
            match orderly {
                Some(cx) => speaker.source.release(speaker.latest, cx),
                None => speaker.source.place.judge(End::Broken),
            }
        }
        let out = if add_done {
            [out.as_ref(), DONE].concat().into()
        } else {
            out
        };
        Some(out).filter(|out| !out.is_empty())
    }

    /// The stream has stopped in the middle: somebody else is asked to go on.
    fn fail(&mut self, exchange: &mut Exchange, (end, kind): (End, UpstreamFault), why: &str) {
        let Some(mut speaker) = self.now.take() else {
            return;
        };
        let upstream = &speaker.source.place.upstream;
        let message = format!("upstream `{}` {why}", upstream.name);
        exchange.passed_over(upstream, why);
        let error = if kind == UpstreamFault::timeout {
            ApiError::new(ErrorKind::Timeout, message).with_code("upstream_timeout")
        } else {
            bad_upstream(message)
        };
        if self.chunks.repeating() {
            // Who answers differently is not broken.
            self.in_vain = Some(error.message);
            speaker.source.place.judge(End::GivenUp);
            self.course = None;
        } else {
            speaker.source.place.fault(end, kind);
            self.failure.get_or_insert(error);
        }
        drop(speaker);
        if self.next.is_none() {
            self.ask(exchange);
        }
    }

    /// Asks somebody else to go on; false if nobody can be.
    fn ask(&mut self, exchange: &mut Exchange) -> bool {
        let Some(course) = &mut self.course else {
            return false;
        };
        match course.rescue(exchange, &self.chunks) {
            Ok((rescue, until, attempt)) => {
                self.next = Some(Next {
                    rescue,
                    until,
                    attempt,
                });
                true
            }
            Err(why) => {
                self.in_vain.get_or_insert(why);
                self.course = None;
                false
            }
        }
    }

    /// Whoever was asked to go on has answered, or will not.
    fn arrived(&mut self, exchange: &mut Exchange, end: Result<Answered, Fault>) {
        let Some(next) = self.next.take() else { return };
        let Some(course) = &mut self.course else {
            return;
        };
        let rescue = next.rescue;
        match end {
            Ok(mut answered) => {
                let status = answered.status();
                let times = (answered.connected_at, answered.came_at);
                exchange.head_came(&rescue.upstream, status, times);
                let streams = is_event_stream(answered.response.headers());
                if praised(status) && streams {
                    self.go_on(exchange, answered, rescue.going_on);
                    return;
                }
                answered.place.judge(End::Status(status));
                course.note_refusal(exchange, &answered);
                exchange.passed_over(&rescue.upstream, &format!("answered {status}"));
                self.in_vain = Some(format!(
                    "upstream `{}` answered {status} to the request to go on",
                    rescue.upstream.name
                ));
                // It knows no such request; it may know the one that the client made.
                if matches!(status, 400 | 422)
                    && let Some((rescue, until, attempt)) =
                        course.repeat(exchange, &rescue, &self.chunks)
                {
                    self.next = Some(Next {
                        rescue,
                        until,
                        attempt,
                    });
                    return;
                }
            }
            Err(fault) => {
                let name = &rescue.upstream.name;
                exchange.attempts.connected(name, fault.connected_at);
                exchange.passed_over(&rescue.upstream, &fault.error.message);
                self.in_vain = Some(fault.error.message);
            }
        }
        self.ask(exchange);
    }

    fn go_on(&mut self, exchange: &mut Exchange, answered: Answered, going_on: GoingOn) {
        if let Some(mut silent) = self.now.take() {
            silent
                .source
                .place
                .fault(End::Broken, UpstreamFault::timeout);
        }
        let status = answered.status();
        exchange.answered_by(&answered.place.upstream);
        self.chunks.go_on(going_on);
        let source = Source {
            place: answered.place,
            connection: answered.connection,
            status,
            via: answered.via,
            early: answered.early,
        };
        let now = exchange.gateway.shared().clock.now();
        self.now = Some(Speaker::new(exchange, source, now));
    }

    /// The event that ends a stream nobody could end better. Never `[DONE]` after it.
    fn give_up(&mut self, exchange: &mut Exchange) -> Bytes {
        self.over = true;
        let failure = self.failure.take();
        let mut error = failure.unwrap_or_else(|| bad_upstream("the stream was cut".to_owned()));
        if let Some(why) = self.in_vain.take() {
            error.message = format!("{}, and nobody else could go on: {why}", error.message);
        }
        exchange.error = Some(error.message.clone());
        [b"data: ", openai_body(&error).as_slice(), b"\n\n"]
            .concat()
            .into()
    }

    /// When something has to be done although nothing comes.
    fn due(&self) -> Instant {
        let far = self.sent_at + Duration::from_secs(365 * 24 * 3600);
        let deadline = self.deadline.map(Deadline::instant);
        let heartbeat = self.heartbeat.map(|wait| self.sent_at + wait);
        let silence = self.now.as_ref().map(|now| now.latest + now.silence);
        let next = self.next.as_ref().map(|next| next.until);
        [deadline, heartbeat, silence, next, self.stalled_at()]
            .into_iter()
            .flatten()
            .fold(far, Instant::min)
    }

    /// When the silence of the one who speaks is long enough to ask another as well.
    fn stalled_at(&self) -> Option<Instant> {
        let (speaker, course) = (self.now.as_ref()?, self.course.as_ref()?);
        if self.next.is_some() {
            return None;
        }
        Some(speaker.latest + course.stall(self.chunks.begun)?)
    }

    /// Something is due.
    fn late(&mut self, exchange: &mut Exchange) -> Option<Bytes> {
        let now = exchange.gateway.shared().clock.now();
        if self
            .deadline
            .is_some_and(|deadline| deadline.left(now).is_zero())
        {
            self.course = None;
            self.next = None;
            if let Some(speaker) = &self.now {
                let name = &speaker.source.place.upstream.name;
                let message = format!("the deadline passed while upstream `{name}` was answering");
                let error = ApiError::new(ErrorKind::Timeout, message);
                self.failure = Some(error.with_code("upstream_timeout"));
            }
            self.now = None;
            return None;
        }
        if self.next.as_ref().is_some_and(|next| next.until <= now) {
            self.next = None;
            self.ask(exchange);
        }
        if let Some(speaker) = self.now.as_ref()
            && speaker.latest + speaker.silence <= now
        {
            let why = format!("sent nothing for {} ms", speaker.silence.as_millis());
            self.fail(exchange, (End::Broken, UpstreamFault::timeout), &why);
        } else if self.stalled_at().is_some_and(|at| at <= now) {
            self.ask(exchange);
        }
        let heartbeat = self.heartbeat?;
        (self.sent_at + heartbeat <= now && !self.over).then(|| Bytes::from_static(HEARTBEAT))
    }
}

impl Speaker {
    fn new(exchange: &Exchange, source: Source, now: Instant) -> Self {
        Self {
            silence: silence(exchange, &source.place.upstream),
            source,
            latest: now,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        self.source.poll_frame(cx)
    }
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk")
            .field("chunks", &self.chunks)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
