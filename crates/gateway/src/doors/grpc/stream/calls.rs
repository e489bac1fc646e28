use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::Deadline;
use bytes::Bytes;
use protocol::oip::grpc::{encode_stream_error, encode_streamed, infer_request, shared_inputs};
use protocol::oip::proto::ModelInferRequest;
use protocol::{ApiError, InferResponse, Parameter};
use tokio::sync::mpsc;

use crate::flow::Flow;
use crate::gateway::Gateway;
use crate::read::Held;
use crate::regions;

/// One message of the answer, without its envelope, and the error that it is about.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) parts: Vec<Bytes>,
    pub(super) error: Option<ApiError>,
}

/// One request of a stream.
#[derive(Debug)]
pub(super) struct Call {
    flow: Flow<Answer>,
    /// Whether its answers need not wait for those to earlier requests.
    decoupled: bool,
    /// Made, and waiting for its turn.
    held: Option<Answer>,
    ended: bool,
}

/// The requests of a stream, in the order they came.
///
/// A model that answers each request once answers them in order, which is what Triton promises and what clients without
/// ids rely on; a decoupled model's answers go out as they come.
#[derive(Debug, Default)]
pub(super) struct Calls(VecDeque<Call>);

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, call: Call) {
        self.0.push_back(call);
    }

    /// The next answer that may be sent. Every call gets on with its work, whosever turn it is.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut first = true;
        let mut index = 0;
        while let Some(call) = self.0.get_mut(index) {
            call.poll(cx);
            let may_send = call.decoupled || first;
            if may_send && let Some(answer) = call.held.take() {
                if call.decoupled {
                    // The others get their turn before its next answer.
                    let call = self.0.remove(index);
                    self.0.extend(call);
                }
                return Poll::Ready(answer);
            }
            if call.ended && call.held.is_none() {
                self.0.remove(index);
                continue;
            }
            first &= call.decoupled;
            index += 1;
        }
        Poll::Pending
    }
}

impl Call {
    pub(super) fn new(
        gateway: Gateway,
        message: ModelInferRequest,
        (decoupled, held): (bool, Arc<Held>),
    ) -> Self {
        let flow = Flow::new(|sender| async move {
            let id = message.id.clone();
            if let Err(error) = answer(&gateway, message, &held, &sender).await {
                // A stream that is gone needs no reason.
                let _gone = sender.send(refusal(&id, error)).await;
            }
        });
        Self {
            flow,
            decoupled,
            held: None,
            ended: false,
        }
    }

    /// A request that goes no further.
    pub(super) fn refused(id: &str, error: ApiError) -> Self {
        Self {
            flow: Flow::new(|_sender| std::future::ready(())),
            decoupled: false,
            held: Some(refusal(id, error)),
            ended: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.held.is_some() || self.ended {
            return;
        }
        match self.flow.poll_next(cx) {
            Poll::Ready(Some(answer)) => self.held = Some(answer),
            Poll::Ready(None) => {
                self.ended = true;
                if self.flow.broken() {
                    let message = "the server failed at this request, which is a bug of the server";
                    let error = ApiError::new(base::ErrorKind::Internal, message);
                    self.held = Some(refusal("", error));
                }
            }
            Poll::Pending => {}
        }
    }
}

fn refusal(id: &str, error: ApiError) -> Answer {
    Answer {
        parts: vec![encode_stream_error(id, &error.message)],
        error: Some(error),
    }
}

async fn answer(
    gateway: &Gateway,
    message: ModelInferRequest,
    held: &Held,
    sender: &mpsc::Sender<Answer>,
) -> Result<(), ApiError> {
    const EMPTY_FINAL: &str = "triton_enable_empty_final_response";
    let shared = gateway.shared();
    let mut read = Vec::new();
    for place in shared_inputs(&message)? {
        read.push(shared.regions.read(&place, &shared.pool, held).await?);
    }
    let (request, placement) = infer_request(message, read)?;
    let destinations = shared.regions.destinations(&placement)?;
    let wants_end = request.parameters.get(EMPTY_FINAL) == Some(&Parameter::Bool(true));
    let empty = InferResponse {
        model: request.model.clone(),
        id: request.id.clone(),
        ..InferResponse::default()
    };
    let mut version = String::new();
    let deadline = Deadline::after(shared.clock.now(), shared.config.request_timeout);
    let mut answers = shared.models.stream(request, deadline).await?;
    let send = async |response: InferResponse, last: bool| {
        let parts = encode_streamed(response, &placement, last);
        sender.send(Answer { parts, error: None }).await.is_ok()
    };
    while let Some(next) = answers.next().await? {
        version.clone_from(&next.response.version);
        if !next.response.outputs.is_empty() || wants_end {
            regions::write(&destinations, &next.response).await?;
            if !send(next.response, next.last).await {
                return Ok(());
            }
        }
        if next.last {
            return Ok(());
        }
    }
    if wants_end {
        let _sent = send(InferResponse { version, ..empty }, true).await;
    }
    Ok(())
}
