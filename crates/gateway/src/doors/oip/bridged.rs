//! Requests over REST for a model on an upstream that speaks gRPC alone.

use std::sync::Arc;

use base::ErrorKind;
use http::{HeaderMap, StatusCode};
use protocol::ApiError;
use protocol::config;
use protocol::oip::rest;

use super::infer::{described, encoded, header_length};
use crate::body::Payload;
use crate::coding::Coding;
use crate::doors::path::Model;
use crate::doors::unpack;
use crate::doors::visit::Visit;
use crate::operation::Operation;
use crate::regions;
use crate::reply::{Failure, JSON, Reply};
use crate::upload::Upload;
use crate::upstream::Upstream;

pub(super) async fn answer(
    mut visit: Visit<'_>,
    model: &Model,
    headers: &HeaderMap,
    (body, upstream): (&mut Upload, &Arc<Upstream>),
) -> Result<Reply, Failure> {
    let named = (model.name.as_str(), model.version.as_deref());
    if model.operation == Operation::Infer {
        return infer(visit, model, headers, (body, upstream)).await;
    }
    let mut bridge = visit.bridge(upstream, headers);
    Ok(match model.operation {
        Operation::ModelMetadata => Reply::json(rest::metadata(&bridge.metadata(named).await?)),
        Operation::ModelConfig => Reply::json(config::to_json(&bridge.config(named).await?)),
        Operation::ModelReady => {
            let ready = bridge.ready(named).await?;
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            };
            Reply::new(
                status,
                JSON,
                Payload::full(rest::model_ready(named.0, ready)),
            )
        }
        operation => return Err(untranslated(upstream, operation)),
    })
}

async fn infer(
    mut visit: Visit<'_>,
    model: &Model,
    headers: &HeaderMap,
    (body, upstream): (&mut Upload, &Arc<Upstream>),
) -> Result<Reply, Failure> {
    unpack(&visit, headers, body)?;
    let json_bytes = header_length(headers)?;
    if json_bytes == Some(0) {
        let message = "a body without JSON cannot be translated; say what its tensors are";
        return Err(ApiError::new(ErrorKind::Unsupported, message).into());
    }
    let (request, form) = described(&mut visit, model, json_bytes, body).await?;
    let gateway = visit.exchange.gateway.clone();
    let destinations = gateway.shared().regions.destinations(&form.placement)?;
    let mut response = visit.bridge(upstream, headers).infer(request).await?;
    model.name.clone_into(&mut response.model);
    regions::write(&destinations, &response).await?;
    let coding = Coding::accepted(headers);
    Ok(encoded(rest::encode(&response, &form)?, coding))
}

fn untranslated(upstream: &Upstream, operation: Operation) -> Failure {
    let (name, asked) = (&upstream.name, operation.name());
    let message = format!("upstream `{name}` speaks gRPC alone, which has no words for `{asked}`");
    ApiError::new(ErrorKind::Unsupported, message).into()
}
