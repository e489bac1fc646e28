//! What every call has that stays open: how its messages are read, how it ends, and that it ends when the node stops.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use base::{Deadline, ErrorKind};
use http::HeaderMap;
use protocol::ApiError;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::body::{Part, Payload, Streamed};
use crate::coding::Coding;
use crate::doors::visit::Visit;
use crate::flow::Flow;
use crate::gateway::Gateway;
use crate::grpc::{self, Received, next_message};
use crate::read::{Held, Reader};
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;

/// A call that stays open for as long as the client likes, unless it named a time itself.
pub(super) struct Open {
    pub(super) gateway: Gateway,
    deadline: Option<Deadline>,
    /// How its messages are packed.
    coding: Option<Coding>,
    /// How ours are.
    packing: Option<Coding>,
}

/// The client's side of a call.
pub(super) type Requests = Box<Reader<Upload>>;

/// A request as it arrived, and its share of the memory for bodies.
pub(super) struct Message {
    pub(super) received: Received,
    pub(super) held: Arc<Held>,
}

pub(super) type Incoming = (Requests, Result<Option<Message>, Failure>);

/// Where a call's answers go.
pub(super) struct Answers {
    sender: mpsc::Sender<Part>,
    packing: Option<Coding>,
}

/// The client takes no more answers.
pub(super) struct Gone;

impl Open {
    pub(super) fn new(
        visit: &mut Visit<'_>,
        headers: &HeaderMap,
        body: &mut Upload,
    ) -> Result<(Self, Requests), Failure> {
        let gateway = visit.exchange.gateway.clone();
        let shared = gateway.shared();
        let coding = grpc::coding(headers)?;
        let held = Held::nothing(&shared.body_bytes);
        let reader = Reader::new(body.take(), shared.config.body_bytes_max, held)
            .map_err(|error| error.into_failure(Shape::Grpc))?;
        visit.exchange.body_asked_for = true;
        let limited = visit.exchange.patience.total.is_some();
        let open = Self {
            deadline: limited.then_some(visit.exchange.deadline),
            coding,
            packing: grpc::packing(headers, coding),
            gateway,
        };
        Ok((open, Box::new(reader)))
    }

    /// Runs the call's work while its answer is sent; what it ends with is the status.
    pub(super) fn reply<F, W>(self, work: F) -> Reply
    where
        F: FnOnce(Arc<Self>, Answers) -> W + Send + 'static,
        W: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let packing = self.packing;
        let open = Arc::new(self);
        let flow = Flow::new(|sender| async move {
            let answers = Answers {
                sender: sender.clone(),
                packing,
            };
            let outcome = open.within_its_time(work(Arc::clone(&open), answers)).await;
            let (trailers, message) = grpc::end(outcome);
            // A client that is gone needs no status.
            if let Some(message) = message {
                let _gone = sender.send(Part::Failed(message)).await;
            }
            let _gone = sender.send(Part::Trailers(trailers)).await;
        });
        grpc::streamed(Payload::Streamed(Box::new(Streamed::new(flow))), packing)
    }

    async fn within_its_time(
        &self,
        work: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let Some(deadline) = self.deadline else {
            return work.await;
        };
        let left = deadline.left(self.gateway.shared().clock.now());
        timeout(left, work).await.unwrap_or_else(|_elapsed| {
            let message = "the deadline passed before the stream had ended";
            Err(ApiError::new(ErrorKind::Timeout, message))
        })
    }

    /// Reads the next message. The reader goes in and comes out, so that half a message is never lost.
    pub(super) fn read(
        &self,
        mut reader: Requests,
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
            let message = read.map(|read| read.map(|received| Message { received, held }));
            (reader, message)
        })
    }

    /// Resolves when the node stops: a call that waits for its client must not hold that up.
    pub(super) fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut stop = self.gateway.shared().connections.stopping();
        Box::pin(async move {
            // Its sender lives as long as the gateway, which this call is part of.
            let _stopping = stop.wait_for(|stop| *stop).await;
        })
    }
}

impl Answers {
    pub(super) async fn send(&self, message: Vec<bytes::Bytes>) -> Result<(), Gone> {
        for part in grpc::message(message, self.packing).await {
            self.part(Part::Data(part)).await?;
        }
        Ok(())
    }

    /// Whom the call is about, for its record.
    pub(super) async fn about(&self, model: String) -> Result<(), Gone> {
        self.part(Part::Model(model)).await
    }

    async fn part(&self, part: Part) -> Result<(), Gone> {
        self.sender.send(part).await.map_err(|_| Gone)
    }
}

/// What a call is told that is open when the node stops.
pub(super) fn stopped() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "the node is stopping; open the stream again",
    )
}
