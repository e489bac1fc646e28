//! gRPC's own health service.

use std::time::Duration;

use base::ErrorKind;
use http::HeaderMap;
use prost::Message as _;
use protocol::ApiError;
use protocol::oip::proto::health::health_check_response::ServingStatus;
use protocol::oip::proto::health::{HealthCheckRequest, HealthCheckResponse};

use super::open::{Answers, Open, Requests, stopped};
use super::{SERVICES, decode};
use crate::doors::health::is_ready;
use crate::doors::visit::Visit;
use crate::gateway::Gateway;
use crate::grpc::answer as answer_message;
use crate::read::Pieces;
use crate::reply::{Failure, Reply};
use crate::upload::Upload;

/// How long a watcher may believe what is so no more. Readiness has many sources and tells nobody; to look costs about
/// a microsecond.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn check(visit: &Visit<'_>, message: Pieces) -> Result<Reply, Failure> {
    let request: HealthCheckRequest = decode(message)?;
    let Some(status) = status(&visit.exchange.gateway, &request.service) else {
        let service = protocol::shown::name(&request.service);
        let message = format!("service `{service}` is not known here");
        return Err(ApiError::new(ErrorKind::NotFound, message).into());
    };
    Ok(answer_message(&HealthCheckResponse {
        status: status.into(),
    }))
}

/// Every service here is ready when the node is; none if there is no such service.
fn status(gateway: &Gateway, service: &str) -> Option<ServingStatus> {
    if !service.is_empty() && !SERVICES.contains(&service) {
        return None;
    }
    Some(if is_ready(gateway, &gateway.snapshot()) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    })
}

pub(super) fn watch(
    mut visit: Visit<'_>,
    headers: &HeaderMap,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let (open, requests) = Open::new(&mut visit, headers, body)?;
    Ok(open.reply(|open, answers| async move { follow(&open, requests, answers).await }))
}

async fn follow(open: &Open, requests: Requests, answers: Answers) -> Result<(), ApiError> {
    let mut stopping = open.stopping();
    let (_reader, read) = tokio::select! {
        biased;
        read = open.read(requests) => read,
        () = &mut stopping => return Err(stopped()),
    };
    let Some(message) = read.map_err(|failure| failure.error)? else {
        return Err(ApiError::invalid("the call has no message"));
    };
    let request: HealthCheckRequest = decode(message.received.message)?;
    let mut told = None;
    loop {
        // Unlike Check, this does not fail: the service may come yet, for all that the protocol knows.
        let now = status(&open.gateway, &request.service).unwrap_or(ServingStatus::ServiceUnknown);
        if told.replace(now) != Some(now) {
            let message = HealthCheckResponse { status: now.into() };
            if answers
                .send(vec![message.encode_to_vec().into()])
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        if open.gateway.shared().leaving() {
            return Err(stopped());
        }
        tokio::select! {
            () = &mut stopping => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
