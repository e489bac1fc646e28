//! Small documents of an upstream's, asked for by nobody's request.

use std::future::poll_fn;
use std::task::Poll;

use base::{Clock, Tasks};
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode};

use super::body::RequestBody;
use super::connection::{ConnectError, Connection, ReceiveError, SendError};
use super::dial::Via;
use super::http1::{Http1, Stream};
use super::tls::Offer;
use super::{Address, Upstream};

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer was cut")]
    Cut(#[from] ReceiveError),
    #[error("it closed the connection without answering")]
    NoAnswer,
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("its address cannot be asked for")]
    Address(#[from] http::Error),
}

/// A document below the upstream's url. Whoever asks says how long they wait.
pub(crate) async fn get(
    upstream: &Upstream,
    path: &str,
    (tasks, clock): (&Tasks, &Clock),
    bytes_max: usize,
) -> Result<Bytes, GetError> {
    let target = PathAndQuery::try_from(path).map_err(http::Error::from)?;
    let mut request = Request::get(upstream.address.target(Some(&target))?);
    if let Some(headers) = request.headers_mut() {
        upstream.authorize(headers);
        headers.insert(HOST, upstream.address.authority.clone());
    }
    let mut request = Box::new(request.body(RequestBody::empty())?);
    let now = clock.now();
    let mut idle = upstream.idle(Via::Http, now).await;
    loop {
        let (mut connection, may_be_stale) = match idle.take() {
            Some(connection) => (connection, true),
            None => upstream.open(Via::Http, (tasks, now)).await?,
        };
        match connection.send(request).await {
            Ok(response) => return take(upstream, connection, response, (clock, bytes_max)).await,
            Err(SendError::Unsent(unsent)) if may_be_stale => request = unsent,
            Err(error) => return Err(unanswered(error)),
        }
    }
}

/// The whole of a small answer.
pub(crate) async fn take(
    upstream: &Upstream,
    mut connection: Connection,
    response: Response<()>,
    (clock, bytes_max): (&Clock, usize),
) -> Result<Bytes, GetError> {
    let document = whole(&mut connection, &response, bytes_max).await?;
    give_back(connection, upstream, clock).await;
    Ok(document)
}

/// Its connection is free for the next request.
pub(super) async fn give_back(connection: Connection, upstream: &Upstream, clock: &Clock) {
    let mut read = Some(connection);
    poll_fn(|cx| {
        if let Some(connection) = read.take() {
            connection.release(&upstream.live, clock.now(), cx);
        }
        Poll::Ready(())
    })
    .await;
}

/// A document somewhere else, over a connection of its own.
pub(crate) async fn get_elsewhere(page: &Address, bytes_max: usize) -> Result<Bytes, GetError> {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(HOST, page.authority.clone());
    let mut request = Request::get(page.itself()?).body(RequestBody::empty())?;
    *request.headers_mut() = headers;
    let stream = Stream::connect(page, Offer::Http1).await?;
    let mut connection = Connection::Http1(Http1::open(stream));
    let response = connection.send(Box::new(request)).await;
    let response = response.map_err(unanswered)?;
    whole(&mut connection, &response, bytes_max).await
}

pub(super) fn unanswered(error: SendError) -> GetError {
    match error {
        SendError::Failed(error) => GetError::Cut(error),
        SendError::Unsent(_) | SendError::Refused | SendError::Body(_) => GetError::NoAnswer,
    }
}

async fn whole(
    connection: &mut Connection,
    response: &Response<()>,
    bytes_max: usize,
) -> Result<Bytes, GetError> {
    if !response.status().is_success() {
        return Err(GetError::Status(response.status()));
    }
    let mut document = BytesMut::new();
    loop {
        // Cancel-safe: the connection is dropped with us, and what was read of it with it.
        let frame = poll_fn(|cx| connection.poll_frame(cx)).await;
        let Some(frame) = frame else {
            return Ok(document.freeze());
        };
        let data = frame?.into_data().unwrap_or_default();
        if document.len() + data.len() > bytes_max {
            return Err(GetError::TooLarge(bytes_max));
        }
        document.extend_from_slice(&data);
    }
}
