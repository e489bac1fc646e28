use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::Deadline;
use bytes::Bytes;
use protocol::oip::Placement;
use protocol::oip::grpc::{encode_stream_error, encode_streamed, infer_request, shared_inputs};
use protocol::oip::proto::ModelInferRequest;
use protocol::{ApiError, InferRequest, InferResponse, Parameter};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admission::{Asking, Permit};
use crate::flow::Flow;
use crate::gateway::Gateway;
use crate::read::Held;
use crate::regions::{self, Destinations};
use crate::snapshot::Snapshot;

/// One message of the answer, without its envelope, and the error that it is about.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) parts: Vec<Bytes>,
    pub(super) error: Option<ApiError>,
}

/// How far a request has come.
#[derive(Debug)]
enum Progress {
    /// All that it needs is here, its model too: it goes to the model now.
    Begins {
        decoupled: bool,
    },
    Answered(Answer),
}

/// What a request holds of what is limited, until it is answered.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) permit: Permit,
    pub(super) snapshot: Arc<Snapshot>,
}

/// One request of a stream.
#[derive(Debug)]
pub(super) struct Call {
    flow: Flow<Progress>,
    model: String,
    /// The model has it, or never will.
    begun: bool,
    /// Whether its answers need not wait for those to earlier requests.
    decoupled: bool,
    /// Made, and waiting for its turn.
    held: Option<Answer>,
    ended: bool,
}

/// The requests of a stream, in the order they came.
///
/// A model that answers each request once answers them in order, which is what Triton promises and what clients without
/// ids rely on; a decoupled model's answers go out as they come. A model gets its requests in order, too, however long one
/// of them is read from shared memory: a sequence is its requests in the order they were sent.
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
        let mut all_begun = true;
        while index < self.0.len() {
            let behind = !all_begun && self.behind(index);
            let call = &mut self.0[index];
            if !behind {
                call.poll(cx);
            }
            all_begun &= call.begun;
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

    /// Whether an earlier request has not reached the same model yet.
    fn behind(&self, index: usize) -> bool {
        let model = &self.0[index].model;
        let mut earlier = self.0.range(..index);
        earlier.any(|call| !call.begun && call.model == *model)
    }
}

impl Admission {
    async fn admit(&mut self, model: &str, patience: Duration) -> Result<(), ApiError> {
        let asking = Asking {
            rules: self.snapshot.route_rules(model),
            ask: None,
            patience,
            total: None,
        };
        match self.permit.admit(&asking)? {
            Some(line) => self.permit.stand_in(&line, &asking).await,
            None => Ok(()),
        }
    }
}

impl Call {
    pub(super) fn new(
        gateway: Gateway,
        message: ModelInferRequest,
        (held, mut admission): (Arc<Held>, Option<Admission>),
    ) -> Self {
        let model = message.model_name.clone();
        let shared = gateway.shared();
        let deadline = Deadline::after(shared.clock.now(), shared.config.request_timeout);
        let flow = Flow::new(|sender| async move {
            let id = message.id.clone();
            let answered = async {
                if let Some(admission) = &mut admission {
                    let patience = deadline.left(gateway.shared().clock.now());
                    admission.admit(&message.model_name, patience).await?;
                }
                let prepared = prepare(&gateway, message, (&held, deadline)).await?;
                answer(&gateway, prepared, deadline, &sender).await
            }
            .await;
            if let Err(error) = answered {
                // A stream that is gone needs no reason.
                let refused = Progress::Answered(refusal(&id, error));
                let _gone = sender.send(refused).await;
            }
        });
        Self {
            flow,
            model,
            begun: false,
            decoupled: false,
            held: None,
            ended: false,
        }
    }

    /// A request that goes no further.
    pub(super) fn refused(id: &str, error: ApiError) -> Self {
        Self {
            flow: Flow::new(|_sender| std::future::ready(())),
            model: String::new(),
            begun: true,
            decoupled: false,
            held: Some(refusal(id, error)),
            ended: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while self.held.is_none() && !self.ended {
            match self.flow.poll_next(cx) {
                Poll::Ready(Some(Progress::Begins { decoupled })) => {
                    self.begun = true;
                    self.decoupled = decoupled;
                }
                Poll::Ready(Some(Progress::Answered(answer))) => {
                    self.begun = true;
                    self.held = Some(answer);
                }
                Poll::Ready(None) => self.end(),
                Poll::Pending => return,
            }
        }
    }

    fn end(&mut self) {
        self.begun = true;
        self.ended = true;
        if self.flow.broken() {
            let message = "the server failed at this request, which is a bug of the server";
            let error = ApiError::new(base::ErrorKind::Internal, message);
            self.held = Some(refusal("", error));
        }
    }
}

fn refusal(id: &str, error: ApiError) -> Answer {
    Answer {
        parts: vec![encode_stream_error(id, &error.message)],
        error: Some(error),
    }
}

/// A request that needs nothing more but its model's time.
struct Prepared {
    request: InferRequest,
    placement: Placement,
    destinations: Destinations,
}

/// Reads what lies in shared memory, and has the model brought into memory.
async fn prepare(
    gateway: &Gateway,
    message: ModelInferRequest,
    (held, deadline): (&Held, Deadline),
) -> Result<Prepared, ApiError> {
    let shared = gateway.shared();
    let mut read = Vec::new();
    for place in shared_inputs(&message)? {
        read.push(shared.regions.read(&place, &shared.pool, held).await?);
    }
    let (request, placement) = infer_request(message, read)?;
    let destinations = shared.regions.destinations(&placement)?;
    let wake = shared
        .models
        .wake(&request.model, request.version.as_deref());
    match timeout(deadline.left(shared.clock.now()), wake).await {
        Ok(woken) => woken?,
        // The model says it, in its own words.
        Err(_elapsed) => {}
    }
    Ok(Prepared {
        request,
        placement,
        destinations,
    })
}

async fn answer(
    gateway: &Gateway,
    prepared: Prepared,
    deadline: Deadline,
    sender: &mpsc::Sender<Progress>,
) -> Result<(), ApiError> {
    const EMPTY_FINAL: &str = "triton_enable_empty_final_response";
    let shared = gateway.shared();
    let Prepared {
        request,
        placement,
        destinations,
    } = prepared;
    let traits = shared
        .models
        .traits(&request.model, request.version.as_deref());
    let decoupled = traits.is_ok_and(|traits| traits.decoupled);
    if sender.send(Progress::Begins { decoupled }).await.is_err() {
        return Ok(());
    }
    let wants_end = request.parameters.get(EMPTY_FINAL) == Some(&Parameter::Bool(true));
    let empty = InferResponse {
        model: request.model.clone(),
        id: request.id.clone(),
        ..InferResponse::default()
    };
    let mut version = String::new();
    let mut answers = shared.models.stream(request, deadline).await?;
    let send = async |response: InferResponse, last: bool| {
        let parts = encode_streamed(response, &placement, last);
        let answer = Answer { parts, error: None };
        sender.send(Progress::Answered(answer)).await.is_ok()
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
