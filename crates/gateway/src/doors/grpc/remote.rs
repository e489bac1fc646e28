//! Calls about models that are somewhere else: the client's message goes there as it came.

use std::sync::Arc;

use base::ErrorKind;
use http::request::Parts;
use protocol::oip::grpc::scan_model;

use super::Unary;
use crate::doors::visit::Visit;
use crate::grpc::Received;
use crate::operation::Operation;
use crate::read::Pieces;
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, Reply};
use crate::snapshot::Target;
use crate::upstream::{RequestBody, Upstream, Via};

/// Who answers a call.
pub(super) enum Place {
    Here,
    Upstream(Arc<Upstream>),
    /// Nobody has the model, and that is the answer.
    Nowhere,
}

/// Whoever has the model that the message names. Calls about the server itself are answered here.
pub(super) async fn place(
    visit: &mut Visit<'_>,
    call: Unary,
    message: &Pieces,
) -> Result<Place, Failure> {
    let operation = match call {
        Unary::Of(operation) if operation.names_a_model() => operation,
        _ => return Ok(Place::Here),
    };
    let model = scan_model(message.peek())?;
    // Of every model of this process.
    if model.is_empty() && operation == Operation::GrpcModelStatistics {
        return Ok(Place::Here);
    }
    visit.admit(&model, None).await?;
    match visit.choose(&model).await {
        Ok(Target::Local) => Ok(Place::Here),
        Ok(Target::Upstream(upstream)) => Ok(Place::Upstream(upstream)),
        // Triton's answer here; over REST it is an error.
        Err(failure)
            if operation == Operation::GrpcModelReady
                && failure.error.kind == ErrorKind::NotFound =>
        {
            Ok(Place::Nowhere)
        }
        Err(failure) => Err(failure),
    }
}

pub(super) async fn answer(
    visit: Visit<'_>,
    upstream: &Arc<Upstream>,
    head: &Parts,
    received: Received,
) -> Result<Reply, Failure> {
    let outgoing = Outgoing {
        ours_authorized: visit.ours_authorized(),
        head: Box::new(head.clone()),
        body: RequestBody::Parts(received.into_parts()),
        via: Via::Grpc,
    };
    relay(visit.exchange, visit.snapshot, upstream, outgoing).await
}
