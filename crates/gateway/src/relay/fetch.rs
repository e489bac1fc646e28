use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request};
use protocol::ApiError;
use protocol::resource::UpstreamKind;

use super::attempt::{Place, attempt, bad_upstream, no_answer_in};
use super::silence;
use telemetry::Stage;
use tokio::time::timeout;

use crate::exchange::Exchange;
use crate::headers::{ANTHROPIC_VERSION, REQUEST_ID};
use crate::reply::Failure;
use crate::upstream::{GetError, RequestBody, Upstream, Via, take};

/// A small document of an upstream's, for ourselves.
pub(crate) async fn fetch(
    exchange: &mut Exchange,
    upstream: &Arc<Upstream>,
    path: &'static str,
    bytes_max: usize,
) -> Result<Bytes, Failure> {
    let request = request(exchange, upstream, path)
        .map_err(|error| ApiError::new(base::ErrorKind::Internal, error.to_string()))?;
    exchange.doing = Stage::Upstream;
    let place = Place::enter(&exchange.gateway, upstream, (exchange.caller, None));
    let wait = silence(exchange, upstream).min(exchange.time_left());
    let Ok(ended) = timeout(wait, attempt(place, (request, Via::Http))).await else {
        return Err(no_answer_in(upstream, wait).into());
    };
    let answered = ended.map_err(|fault| fault.error)?;
    exchange.mark_attempt(Some(answered.connected_at));
    let _place = answered.place;
    let clock = &exchange.gateway.shared().clock;
    take(
        upstream,
        answered.connection,
        answered.response,
        (clock, bytes_max),
    )
    .await
    .map_err(|error| {
        let name = &upstream.name;
        let message = match error {
            GetError::Status(status) => format!("upstream `{name}` answered {status} to {path}"),
            GetError::TooLarge(bytes) => format!("upstream `{name}` sent more than {bytes} bytes"),
            _ => format!("upstream `{name}` cut its answer"),
        };
        bad_upstream(message).into()
    })
}

fn request(
    exchange: &Exchange,
    upstream: &Upstream,
    path: &'static str,
) -> Result<Box<Request<RequestBody>>, http::Error> {
    let target = upstream
        .address
        .target(Some(&PathAndQuery::from_static(path)))?;
    let mut request = Request::get(target).body(RequestBody::empty())?;
    let headers = request.headers_mut();
    headers.insert(HOST, upstream.address.authority.clone());
    headers.insert(REQUEST_ID, HeaderValue::from_str(exchange.id.as_str())?);
    upstream.authorize(headers);
    if upstream.spec.kind == UpstreamKind::Anthropic {
        // It answers nobody who does not say so.
        headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
    }
    Ok(Box::new(request))
}
