use base::ErrorKind;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Version, response};
use protocol::{ApiError, openai};

use super::Outgoing;
use crate::exchange::Exchange;
use crate::headers::{
    API_KEY, GRPC_TIMEOUT, REQUEST_ID, TIMEOUT_MS, TRACEPARENT, TRACESTATE, UPSTREAM_REQUEST_ID,
    X_API_KEY, remove_hop_by_hop,
};
use crate::upstream::{RequestBody, Upstream, Via, Wire};

/// The client's request as the upstream gets it: same method, path, query, headers and bytes, except for what concerns
/// one connection, credentials, and the two headers that carry our id and what is left of the caller's deadline.
pub(super) fn request(
    exchange: &Exchange,
    upstream: &Upstream,
    outgoing: Outgoing,
) -> Result<Box<Request<RequestBody>>, ApiError> {
    let mut head = outgoing.head;
    let address = upstream.address_of(outgoing.via);
    head.uri = address
        .target(head.uri.path_and_query())
        .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
    head.version = Version::HTTP_11;
    let headers = &mut head.headers;
    remove_hop_by_hop(headers);
    // Answered by us; the body follows at once.
    headers.remove(EXPECT);
    // hyper writes the length of the body that it sends.
    headers.remove(CONTENT_LENGTH);
    if outgoing.ours_authorized {
        headers.remove(AUTHORIZATION);
        headers.remove(API_KEY);
        headers.remove(X_API_KEY);
    }
    upstream.authorize(headers);
    headers.insert(HOST, address.authority.clone());
    if let Ok(id) = HeaderValue::from_str(exchange.id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    trace(exchange, headers);
    // Only what the caller said: our default bounds the wait for a head, and as a header it would cut a healthy stream.
    if exchange.patience.total.is_some() {
        let left = u64::try_from(exchange.time_left().as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT_MS, HeaderValue::from(left));
        if outgoing.via == Via::Grpc {
            headers.insert(GRPC_TIMEOUT, grpc_timeout(left));
        }
    }
    if outgoing.via == Via::Grpc {
        // Concerns one connection, and gRPC's servers look for it.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let body = match &exchange.model_there {
        None => outgoing.body,
        Some(model) => renamed(exchange, outgoing.body, model)?,
    };
    Ok(Box::new(Request::from_parts(*head, body)))
}

/// The trace goes on with the attempt's span as the parent.
fn trace(exchange: &Exchange, headers: &mut HeaderMap) {
    let context = &exchange.context;
    if !context.inherited() {
        // It belongs to a trace that could not be read, or to none.
        headers.remove(TRACESTATE);
    }
    let span = context.attempt_id(exchange.attempts.count());
    if let Ok(parent) = HeaderValue::try_from(context.traceparent(span)) {
        headers.insert(TRACEPARENT, parent);
    }
}

/// The body with the model's name of where it goes, and nothing else changed.
fn renamed(exchange: &Exchange, body: RequestBody, model: &str) -> Result<RequestBody, ApiError> {
    match (exchange.operation.wire(), body) {
        (Wire::OpenAi | Wire::Anthropic, RequestBody::Whole(body)) => {
            Ok(RequestBody::Whole(openai::rename(&body, model)?.into()))
        }
        // The path or a message names the model, or the body is gone already.
        _ => {
            let message = "a request of this kind cannot be sent on under another model's name";
            Err(ApiError::new(ErrorKind::Unsupported, message))
        }
    }
}

/// In the finest unit that eight digits hold, which is what gRPC allows.
fn grpc_timeout(left_ms: u64) -> HeaderValue {
    const DIGITS_MAX: u64 = 99_999_999;
    let text = if left_ms <= DIGITS_MAX {
        format!("{left_ms}m")
    } else {
        format!("{}S", (left_ms / 1_000).min(DIGITS_MAX))
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0m"))
}

/// The upstream's head as the client gets it. `x-request-id` is always ours, the one that `kapok explain` knows; the
/// upstream was given it, and if it answers under another, that one is kept beside it.
pub(super) fn response(mut head: response::Parts, id: &str) -> response::Parts {
    // Transfer-Encoding overrides Content-Length (RFC 9112 §6.3), and the body was read that way: its length is not this.
    if head.headers.contains_key(TRANSFER_ENCODING) {
        head.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut head.headers);
    if let Some(theirs) = head.headers.remove(REQUEST_ID)
        && theirs.as_bytes() != id.as_bytes()
    {
        head.headers.insert(UPSTREAM_REQUEST_ID, theirs);
    }
    head.version = Version::HTTP_11;
    head
}
