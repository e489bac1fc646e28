use base::ErrorKind;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Version, response};
use protocol::ApiError;

use super::Outgoing;
use crate::exchange::Exchange;
use crate::headers::{
    API_KEY, REQUEST_ID, TIMEOUT_MS, UPSTREAM_REQUEST_ID, X_API_KEY, remove_hop_by_hop,
};
use crate::upstream::{RequestBody, Upstream};

/// The client's request as the upstream gets it: same method, path, query, headers and bytes, except for what concerns
/// one connection, credentials, and the two headers that carry our id and what is left of the caller's deadline.
pub(super) fn request(
    exchange: &Exchange,
    upstream: &Upstream,
    outgoing: Outgoing,
) -> Result<Request<RequestBody>, ApiError> {
    let mut head = outgoing.head;
    head.uri = upstream
        .address
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
    if let Some(own) = &upstream.authorization {
        headers.insert(AUTHORIZATION, own.clone());
    }
    headers.insert(HOST, upstream.address.authority.clone());
    if let Ok(id) = HeaderValue::from_str(exchange.id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    // Only what the caller said: our default bounds the wait for a head, and as a header it would cut a healthy stream.
    if exchange.patience.total.is_some() {
        let left = u64::try_from(exchange.time_left().as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT_MS, HeaderValue::from(left));
    }
    Ok(Request::from_parts(head, outgoing.body))
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
