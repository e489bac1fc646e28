use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use protocol::oip::repository;
use protocol::oip::rest::{self, EncodedResponse, Header};
use protocol::{ApiError, config};
use telemetry::Stage;

use super::path::{Model, Oip};
use super::unpack;
use super::visit::Visit;
use super::{control, settings};
use crate::body::Payload;
use crate::coding::Coding;
use crate::headers::INFER_HEADER_LENGTH;
use crate::operation::Operation;
use crate::read::Reader;
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, JSON, Reply, Shape};
use crate::snapshot::Target;
use crate::upload::Upload;

const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn answer(
    mut visit: Visit<'_>,
    call: Oip,
    head: Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let shared = visit.exchange.gateway.shared();
    match call {
        Oip::Live => Ok(Reply::json(rest::live(true))),
        Oip::Server => Ok(Reply::json(rest::server_metadata(shared.version))),
        Oip::Index => {
            let body = visit.whole_body(body, Shape::Oip).await?;
            let ready_only = repository::index_ready(&body)?;
            Ok(Reply::json(rest::index(&index(&visit, ready_only))))
        }
        Oip::Load(change) => control::load_over_rest(visit, change, body).await,
        Oip::Unload(change) => control::unload_over_rest(visit, change, body).await,
        Oip::Trace(model) => settings::trace_over_rest(visit, model, &head, body).await,
        Oip::Logging => settings::log_over_rest(visit, &head, body).await,
        Oip::Statistics => {
            let mut statistics = shared.models.statistics(None, None)?;
            statistics.retain(|model| visit.key.is_none_or(|key| key.sees(&model.name)));
            Ok(Reply::json(rest::statistics(&statistics)))
        }
        Oip::Model(model) => match visit.choose(&model.name)? {
            Target::Local if model.operation == Operation::Infer => {
                unpack(&visit, &head.headers, body)?;
                infer(visit, &model, &head.headers, body).await
            }
            Target::Local => about(&visit, &model),
            Target::Upstream(upstream) => {
                let body = visit.whole_body(body, Shape::Oip).await?;
                let outgoing = Outgoing {
                    ours_authorized: visit.ours_authorized(),
                    head,
                    body,
                };
                relay(visit.exchange, &upstream, outgoing).await
            }
        },
    }
}

/// The repository index as this caller may see it.
pub(super) fn index(visit: &Visit<'_>, ready_only: bool) -> Vec<protocol::IndexEntry> {
    let mut index = visit.exchange.gateway.shared().models.index();
    index.retain(|entry| {
        (!ready_only || entry.state == protocol::ModelState::Ready)
            && visit.key.is_none_or(|key| key.sees(&entry.name))
    });
    index
}

fn about(visit: &Visit<'_>, model: &Model) -> Result<Reply, Failure> {
    let models = &visit.exchange.gateway.shared().models;
    let (name, version) = (model.name.as_str(), model.version.as_deref());
    Ok(match model.operation {
        Operation::ModelReady => {
            let ready = models.model_ready(name, version)?;
            // Triton's own code for a model that is known and not ready.
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            };
            let body = Payload::full(rest::model_ready(name, ready));
            Reply::new(status, JSON, body)
        }
        Operation::ModelConfig => Reply::json(config::to_json(&models.config(name, version)?)),
        Operation::ModelStatistics => {
            let statistics = models.statistics(Some(name), version)?;
            Reply::json(rest::statistics(&statistics))
        }
        _ => Reply::json(rest::metadata(&models.metadata(name, version)?)),
    })
}

async fn infer(
    mut visit: Visit<'_>,
    model: &Model,
    headers: &HeaderMap,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let json_bytes = header_length(headers)?;
    let mut body = visit.reader(body, Shape::Oip)?;
    let json = match json_bytes {
        Some(bytes) => visit.read(Shape::Oip, body.exactly(bytes)).await?,
        None => visit.read(Shape::Oip, body.rest()).await?,
    };
    visit.exchange.mark(Stage::Read);
    visit.exchange.doing = Stage::Parse;
    if let Some(bytes) = json_bytes
        && json.len() < bytes
    {
        let message = format!(
            "Inference-Header-Content-Length is {bytes}, and the body has {} bytes",
            json.len()
        );
        return Err(ApiError::invalid(message).into());
    }
    let header = rest::parse_header(&json)?;
    visit.exchange.mark(Stage::Parse);
    visit.exchange.doing = Stage::Read;
    let tensors = binary(&visit, &header, body).await?;
    visit.exchange.mark(Stage::Read);
    visit.exchange.doing = Stage::Parse;
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    let (request, form) =
        header.into_request(&model.name, model.version.as_deref(), tensors, &shared.pool)?;
    visit.exchange.mark(Stage::Parse);
    let call = shared.models.infer(request, visit.exchange.deadline);
    let (response, timing) = visit.wait(call).await?;
    visit.mark_call(&timing);
    Ok(encoded(
        rest::encode(&response, &form)?,
        Coding::accepted(headers),
    ))
}

/// Where the JSON ends. Without the header the whole body is JSON.
fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(INFER_HEADER_LENGTH) else {
        return Ok(None);
    };
    let bytes = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| {
            ApiError::invalid("Inference-Header-Content-Length is not a number of bytes")
        })?;
    match bytes {
        0 => Err(rest::raw_request()),
        bytes => Ok(Some(bytes)),
    }
}

/// The tensors behind the JSON, each in one aligned buffer; one more entry if something follows them.
async fn binary(
    visit: &Visit<'_>,
    header: &Header<'_>,
    mut body: Reader<&mut Upload>,
) -> Result<Vec<Bytes>, Failure> {
    let pool = visit.exchange.gateway.shared().pool.clone();
    let plan = header.binary_plan();
    let reading = async {
        let mut tensors = Vec::with_capacity(plan.len() + 1);
        for bytes in plan {
            tensors.push(body.aligned(bytes, &pool).await?);
        }
        // One byte is enough to know; the rest is not read.
        tensors.push(body.exactly(1).await?);
        Ok(tensors)
    };
    visit.read(Shape::Oip, reading).await
}

fn encoded(response: EncodedResponse, coding: Option<Coding>) -> Reply {
    let Some(header_length) = response.header_length else {
        return Reply::json(response.json).packed(coding);
    };
    let mut pieces = std::collections::VecDeque::with_capacity(1 + response.binary.len());
    pieces.push_back(Bytes::from(response.json));
    let tensors = response.binary.into_iter();
    pieces.extend(tensors.filter(|data| !data.is_empty()));
    Reply::new(StatusCode::OK, BINARY, Payload::Pieces(pieces))
        .with_header(INFER_HEADER_LENGTH, header_length)
        .packed(coding)
}
