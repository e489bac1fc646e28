use std::future::poll_fn;

use base::{Clock, Tasks};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};

use super::body::RequestBody;
use super::connection::SendError;
use super::dial::Via;
use super::get::{GetError, give_back, unanswered};
use super::{Address, Upstream};

/// Everything of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A message of ours to an upstream, and its answer. Whoever sends it says how long they wait.
pub(crate) async fn post(
    upstream: &Upstream,
    (via, path): (Via, &'static str),
    (headers, body): (&HeaderMap, &Bytes),
    (tasks, clock): (&Tasks, &Clock),
    bytes_max: usize,
) -> Result<Answer, GetError> {
    let mut idle = upstream.idle(via, clock.now()).await;
    loop {
        let request = request(upstream.address_of(via), path, (headers, body))?;
        let (mut connection, may_be_stale) = match idle.take() {
            Some(connection) => (connection, true),
            None => upstream.open(via, (tasks, clock.now())).await?,
        };
        let response = match connection.send(request).await {
            Ok(response) => response,
            Err(SendError::Unsent(_)) if may_be_stale => continue,
            Err(error) => return Err(unanswered(error)),
        };
        let (head, ()) = response.into_parts();
        let mut whole = BytesMut::new();
        let mut trailers = None;
        // Cancel-safe: the connection is dropped with us, and what was read of it with it.
        while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) if whole.len() + data.len() > bytes_max => {
                    return Err(GetError::TooLarge(bytes_max));
                }
                Ok(data) => whole.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        give_back(connection, upstream, clock).await;
        return Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: whole.freeze(),
            trailers,
        });
    }
}

fn request(
    address: &Address,
    path: &'static str,
    (headers, body): (&HeaderMap, &Bytes),
) -> Result<Box<Request<RequestBody>>, http::Error> {
    let path = http::uri::PathAndQuery::from_static(path);
    let mut request =
        Request::post(address.target(Some(&path))?).body(RequestBody::Whole(body.clone()))?;
    *request.headers_mut() = headers.clone();
    let host = address.authority.clone();
    request.headers_mut().insert(http::header::HOST, host);
    Ok(Box::new(request))
}
