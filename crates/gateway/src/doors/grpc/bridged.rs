//! Calls about a model on an upstream that speaks REST alone.

use std::sync::Arc;

use base::ErrorKind;
use http::request::Parts;
use protocol::ApiError;
use protocol::oip::grpc::{
    decode_infer, encode_infer, infer_request, model_metadata, shared_inputs,
};
use protocol::oip::proto;

use super::{decode, none_if_empty};
use crate::doors::visit::Visit;
use crate::grpc::{Received, answer as answer_message, answer_pieces};
use crate::operation::Operation;
use crate::regions;
use crate::reply::{Failure, Reply};
use crate::upstream::Upstream;

pub(super) async fn answer(
    mut visit: Visit<'_>,
    upstream: &Arc<Upstream>,
    head: &Parts,
    received: Received,
) -> Result<Reply, Failure> {
    let operation = visit.exchange.operation;
    let message = received.message;
    if operation == Operation::GrpcInfer {
        let pool = visit.exchange.gateway.shared().pool.clone();
        return infer(visit, upstream, head, decode_infer(message, &pool)?).await;
    }
    let mut bridge = visit.bridge(upstream, &head.headers);
    Ok(match operation {
        Operation::GrpcModelReady => {
            let request: proto::ModelReadyRequest = decode(message)?;
            let named = (request.name.as_str(), none_if_empty(&request.version));
            let ready = bridge.ready(named).await?;
            answer_message(&proto::ModelReadyResponse { ready })
        }
        Operation::GrpcModelMetadata => {
            let request: proto::ModelMetadataRequest = decode(message)?;
            let named = (request.name.as_str(), none_if_empty(&request.version));
            answer_message(&model_metadata(bridge.metadata(named).await?))
        }
        Operation::GrpcModelConfig => {
            let request: proto::ModelConfigRequest = decode(message)?;
            let named = (request.name.as_str(), none_if_empty(&request.version));
            let config = Some(bridge.config(named).await?);
            answer_message(&proto::ModelConfigResponse { config })
        }
        operation => {
            let (name, asked) = (&upstream.name, operation.name());
            let message =
                format!("upstream `{name}` speaks REST alone, and `{asked}` is not translated");
            return Err(ApiError::new(ErrorKind::Unsupported, message).into());
        }
    })
}

async fn infer(
    mut visit: Visit<'_>,
    upstream: &Arc<Upstream>,
    head: &Parts,
    message: proto::ModelInferRequest,
) -> Result<Reply, Failure> {
    let places = shared_inputs(&message)?;
    let read = visit.read_shared(&places).await?;
    let (request, placement) = infer_request(message, read)?;
    let gateway = visit.exchange.gateway.clone();
    let destinations = gateway.shared().regions.destinations(&placement)?;
    let response = visit.bridge(upstream, &head.headers).infer(request).await?;
    regions::write(&destinations, &response).await?;
    Ok(answer_pieces(encode_infer(response, &placement)))
}
