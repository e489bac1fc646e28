//! A stream of requests for a model that is somewhere else: its messages pass as they came.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::ErrorKind;
use bytes::Bytes;
use http::request::Parts;
use http_body::{Body, Frame};
use protocol::ApiError;
use protocol::oip::grpc::scan_model;

use super::super::open::{Incoming, Message, Open, Requests};
use crate::admission::Counter;
use crate::doors::visit::Visit;
use crate::read::Held;
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, Reply};
use crate::upstream::{Broken, RequestBody, Upstream, Via};

pub(super) async fn answer(
    visit: Visit<'_>,
    upstream: &Arc<Upstream>,
    head: &Parts,
    (open, requests, first): (Open, Requests, Message),
) -> Result<Reply, Failure> {
    let messages = Messages {
        model: visit.exchange.model.clone(),
        reading: Some(open.read(requests)),
        parts: first.received.into_parts(),
        held: first.held,
        counter: visit
            .exchange
            .permit
            .as_ref()
            .map(|permit| permit.counter()),
        open,
    };
    let outgoing = Outgoing {
        ours_authorized: visit.ours_authorized(),
        head: Box::new(head.clone()),
        body: RequestBody::streamed(messages),
        via: Via::Grpc,
    };
    relay(visit.exchange, visit.snapshot, upstream, outgoing).await
}

/// The stream's messages, one after the other. Each is read whole before any of it is passed on: what it asks for must be
/// known first, and its share of the memory for bodies is given back with the next one.
struct Messages {
    open: Open,
    /// Whom the stream is for: its key was checked for this model and no other.
    model: String,
    /// None once the client has said all.
    reading: Option<Pin<Box<dyn Future<Output = Incoming> + Send>>>,
    parts: VecDeque<Bytes>,
    /// The share of the message that is being passed on.
    held: Arc<Held>,
    /// Counts the requests after the first.
    counter: Option<Counter>,
}

impl Messages {
    fn accept(&mut self, message: Message) -> Result<(), ApiError> {
        let named = scan_model(message.received.message.peek())?;
        if named != self.model {
            let model = &self.model;
            let message = format!(
                "this stream is relayed for model `{model}`; open another one for `{}`",
                protocol::shown::name(&named)
            );
            return Err(ApiError::new(ErrorKind::Invalid, message).with_param("model_name"));
        }
        if let Some(counter) = &self.counter {
            counter.count()?;
        }
        self.parts = message.received.into_parts();
        self.held = message.held;
        Ok(())
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        loop {
            if let Some(part) = this.parts.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            let Some(reading) = &mut this.reading else {
                return Poll::Ready(None);
            };
            let (requests, read) = std::task::ready!(reading.as_mut().poll(cx));
            this.reading = None;
            let accepted = match read {
                Ok(None) => return Poll::Ready(None),
                Ok(Some(message)) => this.accept(message),
                Err(failure) => Err(failure.error),
            };
            if let Err(error) = accepted {
                return Poll::Ready(Some(Err(Broken(error))));
            }
            this.reading = Some(this.open.read(requests));
        }
    }
}
