use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::body::RequestBody;
use super::connection::{ConnectError, Incoming, ReceiveError, SendError};
use super::{Address, tls};

/// One HTTP/1.1 connection to an upstream, driven by the request that uses it.
///
/// No task of its own: the task that serves the client also reads and writes here. That saves two wake-ups per part of
/// an answer (often across cores), and dropping the request closes the socket at once, so the upstream stops working.
/// The price: nobody watches an idle connection, so [`Http1::reusable`] looks at it before it is used again.
#[derive(Debug)]
pub(crate) struct Http1(Box<Inner>);

#[derive(Debug)]
struct Inner {
    sender: http1::SendRequest<RequestBody>,
    /// None once the connection is over; dropping it tells the sender.
    driver: Option<http1::Connection<TokioIo<Stream>, RequestBody>>,
    idle_since: Option<Instant>,
}

impl Http1 {
    pub(super) async fn open(stream: Stream) -> Result<Self, ConnectError> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self(Box::new(Inner {
            sender,
            driver: Some(driver),
            idle_since: None,
        })))
    }

    /// Moves bytes both ways as far as they go.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.0.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // Errors have been handed to the response or its body.
            self.0.driver = None;
        }
    }

    /// Sends a request and waits for the answer's head. Dropping the future leaves the connection unusable.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let mut response = pin!(self.0.sender.try_send_request(request));
        let driver = &mut self.0.driver;
        let sent = poll_fn(|cx| {
            if let Some(driving) = driver
                && Pin::new(driving).poll(cx).is_ready()
            {
                *driver = None;
            }
            response.as_mut().poll(cx)
        })
        .await;
        match sent {
            Ok(response) => Ok(response.map(Incoming::Http1)),
            Err(mut error) => Err(match error.take_message() {
                Some(request) => SendError::Unsent(Box::new(request)),
                None => {
                    let error = ReceiveError::Http1(error.into_error());
                    match error.of_body() {
                        Some(why) => SendError::Body(why),
                        None => SendError::Failed(error),
                    }
                }
            }),
        }
    }

    /// Whether another request may follow the one whose answer has been read to its end.
    pub(super) fn reusable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.0.driver.is_some() && self.0.sender.is_ready()
    }

    pub(crate) fn rest(&mut self, now: Instant) {
        self.0.idle_since = Some(now);
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.0.idle_since
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
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
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
