//! HTTP/1.1 to an upstream.
//!
//! Reading order: [`Http1`] (one connection), [`outbox`] (a request out), [`answer`] (an answer in, a pure parser).

mod answer;
mod outbox;

use std::future::{Future as _, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use protocol::ApiError;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::body::{Broken, RequestBody};
use super::connection::{ConnectError, ReceiveError, SendError};
use super::{Address, tls};
use answer::{Body, Part};
use outbox::{Outbox, Stopped};

pub(crate) use answer::Malformed;
pub use answer::fuzz_http_answer;

/// One HTTP/1.1 connection to an upstream, driven by the request that uses it.
///
/// No task of its own: the task that serves the client also reads and writes here. That saves two wake-ups per part of
/// an answer (often across cores), and dropping the request closes the socket at once, so the upstream stops working.
/// The price: nobody watches an idle connection, so [`Http1::reusable`] looks at it before it is used again.
///
/// No buffer of its own either: what is read is put into memory of its own size. A stream that says nothing for minutes
/// holds none.
#[derive(Debug)]
pub(crate) struct Http1(Box<Inner>);

#[derive(Debug)]
struct Inner {
    stream: Stream,
    outbox: Outbox,
    /// Read and not passed on.
    ahead: Bytes,
    /// How the answer goes on; none before its head.
    body: Option<Body>,
    /// The last read left more in the socket than fits [`READ_BYTES`].
    bulk: bool,
    /// Whether another request may follow this answer.
    keeps: bool,
    /// Why the request's body broke off, if it did.
    broken: Option<Broken>,
    idle_since: Option<Instant>,
}

/// Read at a time, on the stack: a head, or some dozens of tokens.
const READ_BYTES: usize = 16 << 10;

/// Read at a time where there is more: into memory that is passed on as it is.
const BULK_BYTES: usize = 128 << 10;

/// Why an answer, or the rest of it, does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("the request's body ended too early")]
    Body,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Http1 {
    pub(super) fn open(stream: Stream) -> Self {
        Self(Box::new(Inner {
            stream,
            outbox: Outbox::default(),
            ahead: Bytes::new(),
            body: None,
            bulk: false,
            keeps: true,
            broken: None,
            idle_since: None,
        }))
    }

    /// Sends a request and waits for the answer's head. Dropping the future leaves the connection unusable.
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<()>, SendError> {
        let inner = &mut *self.0;
        let method = request.method().clone();
        inner.body = None;
        // Until the answer says otherwise.
        inner.keeps = false;
        inner.outbox.put(&request);
        let begun = poll_fn(|cx| {
            let written = inner.outbox.poll_write(cx, &mut inner.stream);
            match written {
                Poll::Pending if !inner.outbox.begun => Poll::Pending,
                written => Poll::Ready(written),
            }
        });
        let begun = begun.await;
        if !inner.outbox.begun {
            return Err(SendError::Unsent(request));
        }
        inner.outbox.follow(request.into_body());
        if let Poll::Ready(Err(stopped)) = begun {
            inner.stop(stopped);
        }
        let answered = poll_fn(|cx| inner.poll_head(cx, &method)).await;
        answered.map_err(|lost| match self.broken() {
            Some(why) => SendError::Body(why),
            None => SendError::Failed(ReceiveError::Http1(lost)),
        })
    }

    /// The next part of the answer's body; reads the socket only when nothing is there.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        self.0.poll_frame(cx).map(Result::transpose)
    }

    /// Whether the whole answer was passed on.
    pub(super) fn is_end_stream(&self) -> bool {
        self.0.body.is_some_and(Body::ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.0.body {
            Some(Body::Length(left)) => SizeHint::with_exact(left),
            Some(Body::Ended) => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    /// Why the request's body broke off, if it did.
    pub(super) fn broken(&self) -> Option<ApiError> {
        self.0.broken.as_ref().map(|Broken(why)| why.clone())
    }

    /// Whether another request may follow the one whose answer has been read to its end.
    pub(super) fn reusable(&mut self, cx: &mut Context<'_>) -> bool {
        let inner = &mut *self.0;
        // An upstream that says anything unasked, or has closed: nobody knows what it makes of another request.
        inner.keeps
            && inner.body.is_none_or(Body::ended)
            && inner.outbox.is_empty()
            && inner.ahead.is_empty()
            && inner.poll_read(cx).is_pending()
    }

    pub(crate) fn rest(&mut self, now: Instant) {
        self.0.idle_since = Some(now);
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.0.idle_since
    }
}

impl Inner {
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<Response<()>, Lost>> {
        self.write(cx);
        loop {
            if let Some(answer) = answer::head(&mut self.ahead, method)? {
                self.keeps = answer.keeps;
                self.body = Some(answer.body);
                return Poll::Ready(Ok(answer.head));
            }
            if ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Err(Lost::Closed));
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Lost>> {
        let Some(mut body) = self.body else {
            return Poll::Ready(Ok(None));
        };
        loop {
            let part = body.next(&mut self.ahead)?;
            self.body = Some(body);
            match part {
                Part::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                Part::End => return Poll::Ready(Ok(None)),
                Part::More => self.write(cx),
            }
            if ready!(self.poll_more(cx))? > 0 {
                continue;
            }
            if body == Body::Close {
                self.body = Some(Body::Ended);
                return Poll::Ready(Ok(None));
            }
            return Poll::Ready(Err(Lost::Closed));
        }
    }

    /// Moves the request on. That it cannot be written is no end: the upstream may have answered without reading it.
    fn write(&mut self, cx: &mut Context<'_>) {
        if !self.outbox.is_empty()
            && let Poll::Ready(Err(stopped)) = self.outbox.poll_write(cx, &mut self.stream)
        {
            self.stop(stopped);
        }
    }

    fn stop(&mut self, stopped: Stopped) {
        self.outbox = Outbox::default();
        // What was said of its length is not true any more.
        self.keeps = false;
        match stopped {
            Stopped::Socket(error) => {
                tracing::debug!(%error, "the request was not written to its end")
            }
            Stopped::Body(broken) => self.broken = Some(broken),
        }
    }

    /// [`Inner::poll_read`], except after the request broke off: the upstream waits for the rest of it, in vain.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Lost>> {
        if self.broken.is_some() {
            return Poll::Ready(Err(Lost::Body));
        }
        Poll::Ready(Ok(ready!(self.poll_read(cx))?))
    }

    /// Appends to `ahead`; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bulk && self.ahead.is_empty() {
            let mut room = BytesMut::with_capacity(BULK_BYTES);
            let read = ready!(pin!(self.stream.read_buf(&mut room)).poll(cx))?;
            self.bulk = read > READ_BYTES;
            self.ahead = room.freeze();
            return Poll::Ready(Ok(read));
        }
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let read = room.filled();
        self.bulk = read.len() == READ_BYTES;
        self.ahead = if self.ahead.is_empty() {
            Bytes::copy_from_slice(read)
        } else {
            [&self.ahead[..], read].concat().into()
        };
        Poll::Ready(Ok(read.len()))
    }
}

/// TCP, or TLS over it.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) async fn connect(
        address: &Address,
        offer: tls::Offer,
    ) -> Result<Self, ConnectError> {
        let tcp = TcpStream::connect((&*address.host, address.port)).await?;
        // Without it, a request in two writes waits 40 ms for the peer's delayed acknowledgement.
        tcp.set_nodelay(true)?;
        if !address.tls {
            return Ok(Self::Plain(tcp));
        }
        let stream = tls::connect(&address.host, tcp, offer).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whether TLS agreed on HTTP/2.
    pub(super) fn agreed_on_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
