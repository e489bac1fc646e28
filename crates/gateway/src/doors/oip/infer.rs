use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use protocol::oip::rest::{self, EncodedResponse, Header, ResponseForm};
use protocol::{ApiError, InferRequest};
use telemetry::Stage;

use crate::body::Payload;
use crate::coding::Coding;
use crate::doors::path::Model;
use crate::doors::unpack;
use crate::doors::visit::Visit;
use crate::headers::INFER_HEADER_LENGTH;
use crate::read::Reader;
use crate::regions;
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;

const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn answer(
    mut visit: Visit<'_>,
    model: &Model,
    headers: &HeaderMap,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    unpack(&visit, headers, body)?;
    let (request, form) = match header_length(headers)? {
        Some(0) => raw(&mut visit, model, body).await?,
        json_bytes => described(&mut visit, model, json_bytes, body).await?,
    };
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    let destinations = shared.regions.destinations(&form.placement)?;
    visit.exchange.mark(Stage::Parse);
    let call = shared.models.infer(request, visit.exchange.deadline);
    let call = async { call.await.map_err(over_http) };
    let (response, timing) = visit.wait(call).await?;
    visit.mark_call(&timing);
    visit.exchange.answered(&response);
    regions::write(&destinations, &response).await?;
    Ok(encoded(
        rest::encode(&response, &form)?,
        Coding::accepted(headers),
    ))
}

/// A model that answers any number of times has none over HTTP; Triton names the door, and its clients look for it.
fn over_http(error: ApiError) -> ApiError {
    if error.code != Some("decoupled_model") {
        return error;
    }
    ApiError {
        message: "HTTP end point doesn't support models with decoupled transaction policy"
            .to_owned(),
        ..error
    }
}

/// Where the JSON ends. Without the header the whole body is JSON.
pub(super) fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(INFER_HEADER_LENGTH) else {
        return Ok(None);
    };
    let bytes = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    bytes.map(Some).ok_or_else(|| {
        ApiError::invalid("Inference-Header-Content-Length is not a number of bytes")
    })
}

/// The whole body is the model's one input.
async fn raw(
    visit: &mut Visit<'_>,
    model: &Model,
    body: &mut Upload,
) -> Result<(InferRequest, ResponseForm), Failure> {
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    let version = model.version.as_deref();
    let wake = shared.models.wake(&model.name, version);
    visit.wait(wake).await?;
    let metadata = shared.models.metadata(&model.name, version)?;
    let batches = shared.models.traits(&model.name, version)?.batches;
    let mut body = visit.reader(body, Shape::Oip)?;
    let data = visit.read(Shape::Oip, body.whole(&shared.pool)).await?;
    visit.exchange.mark(Stage::Read);
    visit.exchange.doing = Stage::Parse;
    Ok(rest::raw_request(&metadata, version, batches, data)?)
}

/// JSON says what the tensors are, and where.
pub(super) async fn described(
    visit: &mut Visit<'_>,
    model: &Model,
    json_bytes: Option<usize>,
    body: &mut Upload,
) -> Result<(InferRequest, ResponseForm), Failure> {
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
    let mut header = rest::parse_header(&json)?;
    let places = header.shared_plan(&model.name)?;
    visit.exchange.mark(Stage::Parse);
    visit.exchange.doing = Stage::Read;
    let tensors = binary(visit, &header, body).await?;
    header.set_shared(visit.read_shared(&places).await?);
    visit.exchange.mark(Stage::Read);
    visit.exchange.doing = Stage::Parse;
    let version = model.version.as_deref();
    let pool = &visit.exchange.gateway.shared().pool;
    Ok(header.into_request(&model.name, version, tensors, pool)?)
}

/// The tensors behind the JSON, each in one aligned buffer; one more entry if something follows them.
async fn binary(
    visit: &mut Visit<'_>,
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

pub(super) fn encoded(response: EncodedResponse, coding: Option<Coding>) -> Reply {
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

#[cfg(test)]
mod tests {
    use base::ErrorKind;

    use super::*;

    #[test]
    fn only_the_refusal_of_a_decoupled_model_names_the_door() {
        let refused =
            ApiError::new(ErrorKind::Unsupported, "over gRPC").with_code("decoupled_model");
        let told = over_http(refused);
        assert_eq!(told.kind, ErrorKind::Unsupported);
        assert_eq!(
            told.message,
            "HTTP end point doesn't support models with decoupled transaction policy"
        );
        let other = ApiError::invalid("something else");
        assert_eq!(over_http(other.clone()), other);
    }
}
