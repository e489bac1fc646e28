//! `ModelStreamInfer`: many requests on one stream, and the answers to them as they come.

mod calls;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use base::{Deadline, ErrorKind};
use http::HeaderMap;
use protocol::ApiError;
use protocol::oip::grpc::decode_infer;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::body::{Part, Payload, Streamed};
use crate::coding::Coding;
use crate::doors::visit::Visit;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::gateway::Gateway;
use crate::grpc::{self, next_message};
use crate::headers::TRITON_GRPC_ERROR;
use crate::read::{Held, Pieces, Reader};
use crate::reply::{Failure, Reply, Shape};
use crate::snapshot::Snapshot;
use crate::upload::Upload;

use calls::{Answer, Call, Calls};

/// Requests of one stream that are being answered. The next one is read when one of them is done.
const IN_FLIGHT_MAX: usize = 128;

pub(super) fn answer(
    visit: Visit<'_>,
    headers: &HeaderMap,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    let held = Held::nothing(&shared.body_bytes);
    let reader = Reader::new(body.take(), shared.config.body_bytes_max, held)
        .map_err(|error| error.into_failure(Shape::Grpc))?;
    visit.exchange.body_asked_for = true;
    visit
        .exchange
        .answered_by(&shared.local, "a stream is answered here".to_owned());
    let stream = Stream {
        snapshot: Arc::clone(visit.snapshot),
        headers: headers.clone(),
        deadline: limit(visit.exchange),
        errors_end_it: headers
            .get(TRITON_GRPC_ERROR)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
        coding: grpc::coding(headers)?,
        gateway,
    };
    let flow = Flow::new(|sender| stream.run(Box::new(reader), sender));
    Ok(grpc::streamed(Payload::Streamed(Box::new(Streamed::new(
        flow,
    )))))
}

/// A stream may stay open for as long as the client likes, unless it named a time itself.
fn limit(exchange: &Exchange) -> Option<Deadline> {
    exchange.patience.total.map(|_| exchange.deadline)
}

struct Stream {
    gateway: Gateway,
    snapshot: Arc<Snapshot>,
    headers: HeaderMap,
    deadline: Option<Deadline>,
    /// Whether the first error is the stream's status and its end.
    errors_end_it: bool,
    /// How its messages are packed.
    coding: Option<Coding>,
}

type Incoming = (Box<Reader<Upload>>, Result<Option<Message>, Failure>);

/// One request as it arrived, and its share of the memory for bodies.
struct Message {
    pieces: Pieces,
    held: Arc<Held>,
}

enum Step {
    Arrived(Incoming),
    Answered(Answer),
    Ended,
}

impl Stream {
    async fn run(self, reader: Box<Reader<Upload>>, sender: mpsc::Sender<Part>) {
        let left = self
            .deadline
            .map(|deadline| deadline.left(self.gateway.shared().clock.now()));
        let work = self.answer_all(reader, &sender);
        let outcome = match left {
            Some(left) => timeout(left, work).await.unwrap_or_else(|_elapsed| {
                let message = "the deadline passed before the stream had ended";
                Err(ApiError::new(ErrorKind::Timeout, message))
            }),
            None => work.await,
        };
        let (trailers, message) = grpc::end(outcome);
        // A client that is gone needs no status.
        if let Some(message) = message {
            let _gone = sender.send(Part::Failed(message)).await;
        }
        let _gone = sender.send(Part::Trailers(trailers)).await;
    }

    async fn answer_all(
        &self,
        reader: Box<Reader<Upload>>,
        sender: &mpsc::Sender<Part>,
    ) -> Result<(), ApiError> {
        let mut calls = Calls::default();
        let mut reading = Some(self.read(reader));
        loop {
            match step(&mut calls, &mut reading).await {
                Step::Ended => return Ok(()),
                Step::Answered(answer) => {
                    if let (true, Some(error)) = (self.errors_end_it, answer.error) {
                        return Err(error);
                    }
                    for part in answer.parts {
                        if sender.send(Part::Data(part)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                Step::Arrived((reader, Ok(Some(message)))) => {
                    calls.push(self.call(message));
                    reading = Some(self.read(reader));
                }
                Step::Arrived((_, Ok(None))) => {}
                Step::Arrived((_, Err(failure))) => return Err(failure.error),
            }
        }
    }

    /// Reads the next message. The reader goes in and comes out, so that half a message is never lost.
    fn read(
        &self,
        mut reader: Box<Reader<Upload>>,
    ) -> Pin<Box<dyn Future<Output = Incoming> + Send>> {
        let held = Held::nothing(&self.gateway.shared().body_bytes);
        let bytes_max = self.gateway.shared().config.body_bytes_max;
        let coding = self.coding;
        Box::pin(async move {
            let begun = reader.begin_message(Arc::clone(&held));
            let read = match begun {
                Ok(()) => next_message(&mut reader, bytes_max, coding).await,
                Err(error) => Err(error.into_failure(Shape::Grpc)),
            };
            let message = read.map(|read| read.map(|pieces| Message { pieces, held }));
            (reader, message)
        })
    }

    /// The work for one request, which begins when the call is first polled.
    fn call(&self, message: Message) -> Call {
        let shared = self.gateway.shared();
        let Message { pieces, held } = message;
        let message = match decode_infer(pieces, &shared.pool) {
            Ok(message) => message,
            Err(error) => return Call::refused("", error),
        };
        if let Err(error) = self.may_use(&message.model_name) {
            return Call::refused(&message.id, error);
        }
        let config = shared.models.config(&message.model_name, None);
        let decoupled = config.is_ok_and(|config| {
            config
                .model_transaction_policy
                .is_some_and(|policy| policy.decoupled)
        });
        Call::new(self.gateway.clone(), message, (decoupled, held))
    }

    fn may_use(&self, model: &str) -> Result<(), ApiError> {
        if let Some(key) = self.snapshot.keys.check(&self.headers)? {
            key.may_use(model)?;
        }
        if self.gateway.shared().models.has(model) {
            Ok(())
        } else {
            Err(ApiError::unknown_model(model))
        }
    }
}

/// What happens next: an answer before a new request, so that a stream that asks faster than it is answered waits.
async fn step(
    calls: &mut Calls,
    reading: &mut Option<Pin<Box<dyn Future<Output = Incoming> + Send>>>,
) -> Step {
    poll_fn(|cx| {
        if let Poll::Ready(answer) = calls.poll_next(cx) {
            return Poll::Ready(Step::Answered(answer));
        }
        if calls.len() < IN_FLIGHT_MAX
            && let Some(arriving) = reading
            && let Poll::Ready(arrived) = arriving.as_mut().poll(cx)
        {
            *reading = None;
            return Poll::Ready(Step::Arrived(arrived));
        }
        if reading.is_none() && calls.len() == 0 {
            return Poll::Ready(Step::Ended);
        }
        Poll::Pending
    })
    .await
}
