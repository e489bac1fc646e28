//! A way to an upstream for one request: an HTTP/1.1 connection of its own, or a stream of a shared HTTP/2 one.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, Response, header};
use http_body::{Frame, SizeHint};
use protocol::ApiError;

use super::Live;
use super::body::RequestBody;
use super::http1::{Http1, Lost};
use super::http2::Http2;

/// What one request has of the connections to its upstream. Dropping it before the answer's end gives up the request: the
/// upstream's socket is closed, or its stream reset.
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(Http1),
    Http2(Box<Http2>),
}

/// Why a connection could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect")]
    Io(#[from] io::Error),
    #[error("cannot agree on HTTP/2")]
    Http2(#[from] h2::Error),
    #[error("TLS is not possible: {0}")]
    Tls(String),
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing of it was written: it may go over another connection whatever it asks for.
    Unsent(Box<Request<RequestBody>>),
    /// The upstream says that it has not looked at it (HTTP/2's `REFUSED_STREAM`), so it may be sent again whatever it
    /// asks for.
    Refused,
    /// Its body broke off, which is not the upstream's fault.
    Body(ApiError),
    Failed(ReceiveError),
}

/// Why an answer, or the rest of it, does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Http1(#[from] Lost),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl ReceiveError {
    /// Whether what came was no HTTP.
    pub(crate) fn is_parse(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, Lost::Malformed(_)),
            Self::Http2(error) => error.is_library() && !error.is_io(),
        }
    }
}

impl Connection {
    /// Why the request's body broke off, if it did.
    pub(crate) fn broken(&self) -> Option<ApiError> {
        match self {
            Self::Http1(connection) => connection.broken(),
            Self::Http2(stream) => stream.broken(),
        }
    }

    /// Sends a request and waits for the answer's head. Dropping the future leaves the connection unusable.
    pub(crate) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<()>, SendError> {
        match self {
            Self::Http1(connection) => connection.send(request).await,
            Self::Http2(stream) => stream.send(request).await,
        }
    }

    /// The next part of the answer's body; moves what there is to move for this request, both ways.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match self {
            Self::Http1(connection) => connection
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(ReceiveError::from))),
            Self::Http2(stream) => stream
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(ReceiveError::from))),
        }
    }

    /// Whether the whole answer was passed on.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(connection) => connection.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }

    /// After an answer that was read to its end: the connection may serve another request.
    pub(crate) fn release(self, live: &Live, now: Instant, cx: &mut Context<'_>) {
        // A stream's place is given up with it.
        if let Self::Http1(mut connection) = self
            && connection.reusable(cx)
        {
            live.pool.give(connection, now);
        }
    }
}

/// The body of an answer over HTTP/2.
#[derive(Debug)]
pub(super) struct Stream {
    receive: RecvStream,
    /// What its head announced and has not come.
    left: Option<u64>,
}

impl Stream {
    pub(super) fn new(receive: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            left: length,
            receive,
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.receive.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match std::task::ready!(self.receive.poll_data(cx)) {
            Some(Ok(data)) => {
                // Handed on at once, so there is room for as much again.
                self.receive.flow_control().release_capacity(data.len())?;
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => self
                .receive
                .poll_trailers(cx)
                .map(|trailers| trailers.transpose().map(|read| read.map(Frame::trailers))),
        }
    }
}
