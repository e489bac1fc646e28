use std::time::Duration;

use base::{Clock, Deadline, ErrorKind};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use protocol::oip::rest;
use protocol::{ApiError, StreamedResponse, status};
use telemetry::Stage;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::body::{Part, Payload, Streamed};
use crate::coding::Coding;
use crate::doors::path::Model;
use crate::doors::unpack;
use crate::doors::visit::Visit;
use crate::flow::Flow;
use crate::operation::Operation;
use crate::reply::{Failure, Reply, Shape};
use crate::server::ModelStream;
use crate::upload::Upload;

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

pub(super) async fn answer(
    mut visit: Visit<'_>,
    model: &Model,
    headers: &HeaderMap,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    unpack(&visit, headers, body)?;
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    let version = model.version.as_deref();
    let wake = shared.models.wake(&model.name, version);
    visit.wait(wake).await?;
    let metadata = shared.models.metadata(&model.name, version)?;
    let batches = shared.models.traits(&model.name, version)?.batches;
    let body = visit.whole_body(body, Shape::Oip).await?;
    let mut request = rest::read_generate(&body, &metadata, batches, &shared.pool)?;
    request.version.clone_from(&model.version);
    visit.exchange.mark(Stage::Parse);
    let call = shared.models.stream(request, visit.exchange.deadline);
    let mut answers = visit.wait(call).await?;
    // Before the head is sent: what fails until then has a status of its own.
    let first = visit.wait(answers.next()).await?;
    visit.exchange.mark(Stage::Infer);
    visit.exchange.doing = Stage::Encode;
    if model.operation == Operation::GenerateStream {
        let events = Events {
            answers,
            clock: shared.clock.clone(),
            deadline: visit
                .exchange
                .patience
                .total
                .map(|_| visit.exchange.deadline),
        };
        return Ok(events.reply(first));
    }
    let only = only(&mut visit, first, answers).await?;
    let json = rest::encode_generate(&only.response)?;
    Ok(Reply::json(json).packed(Coding::accepted(headers)))
}

/// The one answer; another is refused in Triton's words.
async fn only(
    visit: &mut Visit<'_>,
    first: Option<StreamedResponse>,
    mut answers: Box<dyn ModelStream>,
) -> Result<StreamedResponse, Failure> {
    let mut found: Option<StreamedResponse> = None;
    let mut next = first;
    while let Some(answer) = next {
        let last = answer.last;
        if !answer.response.outputs.is_empty() {
            if found.is_some() {
                return Err(not_one().into());
            }
            found = Some(answer);
        }
        next = if last {
            None
        } else {
            visit.wait(answers.next()).await?
        };
    }
    found.ok_or_else(|| not_one().into())
}

fn not_one() -> ApiError {
    ApiError::invalid(
        "generate expects model to produce exactly 1 response, use generate stream for model that generates various number of responses",
    )
}

/// The answers of one call as server-sent events.
struct Events {
    answers: Box<dyn ModelStream>,
    clock: Clock,
    /// Only if the caller named one: a stream may go on for as long as it goes on.
    deadline: Option<Deadline>,
}

impl Events {
    fn reply(self, first: Option<StreamedResponse>) -> Reply {
        let flow = Flow::new(|sender| self.run(first, sender));
        let payload = Payload::Streamed(Box::new(Streamed::new(flow)));
        Reply::new(StatusCode::OK, EVENTS, payload)
    }

    async fn run(mut self, first: Option<StreamedResponse>, sender: mpsc::Sender<Part>) {
        let mut next = Ok(first);
        loop {
            let (part, last) = match next {
                Ok(None) => return,
                // The last of a stream may be empty.
                Ok(Some(answer)) if answer.response.outputs.is_empty() => (None, answer.last),
                Ok(Some(answer)) => match rest::encode_generate(&answer.response) {
                    Ok(json) => (Some(event(&json)), answer.last),
                    Err(error) => return failed(&sender, error).await,
                },
                Err(error) => return failed(&sender, error).await,
            };
            if let Some(part) = part
                && sender.send(Part::Data(part)).await.is_err()
            {
                return;
            }
            if last {
                return;
            }
            next = self.next().await;
        }
    }

    async fn next(&mut self) -> Result<Option<StreamedResponse>, ApiError> {
        let left = self
            .deadline
            .map(|deadline| deadline.left(self.clock.now()));
        match timeout(left.unwrap_or(Duration::MAX), self.answers.next()).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                let message = "the deadline passed before the model had answered";
                Err(ApiError::new(ErrorKind::Timeout, message))
            }
        }
    }
}

async fn failed(sender: &mpsc::Sender<Part>, error: ApiError) {
    let part = Part::Data(event(&status::oip_body(&error)));
    // A client that is gone needs no reason.
    let _gone = sender.send(part).await;
    let _gone = sender.send(Part::Failed(error.message)).await;
}

fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}
