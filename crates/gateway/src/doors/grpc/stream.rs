//! `ModelStreamInfer`: many requests on one stream, and the answers to them as they come.

mod calls;
mod remote;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::HeaderMap;
use http::request::Parts;
use protocol::ApiError;
use protocol::oip::grpc::{decode_infer, scan_model};
use telemetry::Stage;

use super::open::{Answers, Incoming, Message, Open, Requests, stopped};
use crate::admission::{Permit, class_asked};
use crate::doors::visit::Visit;
use crate::headers::TRITON_GRPC_ERROR;
use crate::reply::{Failure, Reply};
use crate::snapshot::{Snapshot, Target};
use crate::upload::Upload;
use crate::upstream::Wire;

use calls::{Admission, Answer, Call, Calls};

/// Requests of one stream that are being answered. The next one is read when one of them is done.
const IN_FLIGHT_MAX: usize = 128;

/// With upstreams to choose from, whoever has the first request's model answers the whole stream.
pub(super) async fn answer(
    mut visit: Visit<'_>,
    head: &Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let (open, requests) = Open::new(&mut visit, &head.headers, body)?;
    if !visit.snapshot.reaches(Wire::Oip) {
        return Ok(answer_here(&mut visit, head, open, Begun::unread(requests)));
    }
    let mut stopping = open.stopping();
    // Cancel-safe: a message that is lost half read is lost with its call.
    let (requests, read) = tokio::select! {
        biased;
        read = open.read(requests) => read,
        () = &mut stopping => return Err(stopped().into()),
    };
    let first = read?;
    visit.exchange.mark(Stage::Read);
    if let Some(message) = &first
        && let Ok(model) = scan_model(message.received.message.peek())
        && let Ok(Target::Upstream(upstream)) = visit.choose(&model).await
        && let Some(first) = first
    {
        let upstream = visit.admit_stream(&model, upstream).await?;
        if upstream.grpc.is_none() {
            let name = &upstream.name;
            let message = format!(
                "upstream `{name}` speaks REST alone, where there are no streams; call ModelInfer"
            );
            return Err(ApiError::new(base::ErrorKind::Unsupported, message).into());
        }
        return remote::answer(visit, &upstream, head, (open, requests, first)).await;
    }
    let begun = Begun {
        requests,
        first: Some(first),
    };
    Ok(answer_here(&mut visit, head, open, begun))
}

/// A stream's requests, and the first of them where it was read already.
struct Begun {
    requests: Requests,
    first: Option<Option<Message>>,
}

impl Begun {
    fn unread(requests: Requests) -> Self {
        Self {
            requests,
            first: None,
        }
    }
}

fn answer_here(visit: &mut Visit<'_>, head: &Parts, open: Open, begun: Begun) -> Reply {
    visit.exchange.answered_here();
    let snapshot = Arc::clone(visit.snapshot);
    let headers = head.headers.clone();
    open.reply(|open, answers| async move {
        let stream = Stream {
            open: &open,
            snapshot,
            errors_end_it: headers
                .get(TRITON_GRPC_ERROR)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
            headers,
        };
        stream.answer_all(begun, &answers).await
    })
}

struct Stream<'a> {
    open: &'a Open,
    snapshot: Arc<Snapshot>,
    headers: HeaderMap,
    /// Whether the first error is the stream's status and its end.
    errors_end_it: bool,
}

enum Step {
    Arrived(Incoming),
    Answered(Answer),
    Ended,
}

/// What a stream waits for.
struct Waiting {
    calls: Calls,
    /// None once no more is read.
    reading: Option<Pin<Box<dyn Future<Output = Incoming> + Send>>>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    stopped: bool,
}

impl Stream<'_> {
    async fn answer_all(&self, begun: Begun, answers: &Answers) -> Result<(), ApiError> {
        let mut waiting = Waiting {
            calls: Calls::default(),
            reading: Some(match begun.first {
                None => self.open.read(begun.requests),
                Some(first) => Box::pin(std::future::ready((begun.requests, Ok(first)))),
            }),
            stopping: self.open.stopping(),
            stopped: false,
        };
        let mut named = false;
        loop {
            match waiting.step().await {
                Step::Ended if waiting.stopped => return Err(stopped()),
                Step::Ended => return Ok(()),
                Step::Answered(answer) => {
                    if let (true, Some(error)) = (self.errors_end_it, answer.error) {
                        return Err(error);
                    }
                    if answers.send(answer.parts).await.is_err() {
                        return Ok(());
                    }
                }
                Step::Arrived((reader, Ok(Some(message)))) => {
                    let (model, call) = self.call(message);
                    waiting.calls.push(call);
                    waiting.reading = Some(self.open.read(reader));
                    if !named && !model.is_empty() {
                        named = true;
                        if answers.about(model).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                Step::Arrived((_, Ok(None))) => {}
                Step::Arrived((_, Err(failure))) => return Err(failure.error),
            }
        }
    }

    /// The model, and the work for one request, which begins when the call is first polled.
    fn call(&self, message: Message) -> (String, Call) {
        let gateway = &self.open.gateway;
        let shared = gateway.shared();
        let Message { received, held } = message;
        let message = match decode_infer(received.message, &shared.pool) {
            Ok(message) => message,
            Err(error) => return (String::new(), Call::refused("", error)),
        };
        let model = message.model_name.clone();
        let admission = match self.admission(&model) {
            Ok(admission) => admission,
            Err(error) => return (model, Call::refused(&message.id, error)),
        };
        let call = Call::new(gateway.clone(), message, (held, admission));
        (model, call)
    }

    /// Whether the key may use the model, and what the request then holds of what is limited.
    fn admission(&self, model: &str) -> Result<Option<Admission>, ApiError> {
        let shared = self.open.gateway.shared();
        let key = self.snapshot.keys.check(&self.headers)?;
        if let Some(key) = key {
            key.may_use(model)?;
        }
        if !shared.models.has(model) {
            return Err(ApiError::unknown_model(model));
        }
        if !self.snapshot.limited {
            return Ok(None);
        }
        let mut permit = Permit::new(shared.clock.clone(), shared.metrics.clone());
        permit.claim.asked = class_asked(&self.headers);
        permit.enter_key(key)?;
        Ok(Some(Admission {
            permit,
            snapshot: Arc::clone(&self.snapshot),
        }))
    }
}

impl Waiting {
    /// What happens next: an answer before a new request, so that a stream that asks faster than it is answered waits.
    /// When the node stops, what has arrived is answered and the rest is not read.
    async fn step(&mut self) -> Step {
        poll_fn(|cx| {
            if let Poll::Ready(answer) = self.calls.poll_next(cx) {
                return Poll::Ready(Step::Answered(answer));
            }
            if self.calls.len() < IN_FLIGHT_MAX
                && let Some(arriving) = &mut self.reading
                && let Poll::Ready(arrived) = arriving.as_mut().poll(cx)
            {
                self.reading = None;
                return Poll::Ready(Step::Arrived(arrived));
            }
            if self.reading.is_some() && self.stopping.as_mut().poll(cx).is_ready() {
                self.reading = None;
                self.stopped = true;
            }
            if self.reading.is_none() && self.calls.len() == 0 {
                return Poll::Ready(Step::Ended);
            }
            Poll::Pending
        })
        .await
    }
}
