//! From an upstream's description to a connection for one request.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Instant;

use base::Tasks;

use super::connection::{ConnectError, Connection};
use super::http1::{Http1, Stream};
use super::http2::Http2Pool;
use super::tls::Offer;
use super::{Address, Upstream};

/// How a request reaches its upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Via {
    /// HTTP at its url.
    #[default]
    Http,
    /// gRPC, wherever it speaks that.
    Grpc,
}

/// What TLS with an upstream agreed on, once it has.
#[derive(Debug, Default)]
pub(super) struct Agreed(AtomicU8);

const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

impl Agreed {
    fn note(&self, http2: bool) {
        self.0
            .store(if http2 { HTTP2 } else { HTTP1 }, Ordering::Relaxed);
    }

    fn on_http1(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HTTP1
    }
}

impl Upstream {
    /// A connection that is there already, and was not closed meanwhile.
    pub(crate) async fn idle(&self, via: Via, now: Instant) -> Option<Connection> {
        let shared = match via {
            Via::Grpc => self.live.grpc.take(),
            Via::Http if self.offer() == Offer::Http1 => None,
            Via::Http => self.live.http2.take(),
        };
        if let Some(stream) = shared {
            return Some(Connection::Http2(Box::new(stream)));
        }
        if via == Via::Grpc {
            return None;
        }
        while let Some(mut connection) = self.live.pool.take(now) {
            if poll_fn(|cx| Poll::Ready(connection.reusable(cx))).await {
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// A new connection, or a place on one that somebody else opened meanwhile.
    pub(crate) async fn open(&self, via: Via, tasks: &Tasks) -> Result<Connection, ConnectError> {
        match (via, self.offer()) {
            (Via::Grpc, _) => {
                let address = self.grpc.as_ref().ok_or_else(no_grpc)?;
                open_shared(&self.live.grpc, address, Offer::Http2, tasks).await
            }
            (Via::Http, Offer::Http1) => {
                let stream = Stream::connect(&self.address, Offer::Http1).await?;
                Ok(Connection::Http1(Http1::open(stream)))
            }
            (Via::Http, Offer::Http2) => {
                open_shared(&self.live.http2, &self.address, Offer::Http2, tasks).await
            }
            (Via::Http, Offer::Either) if self.live.agreed.on_http1() => {
                let stream = Stream::connect(&self.address, Offer::Either).await?;
                self.greet(stream, tasks).await
            }
            (Via::Http, Offer::Either) => {
                let _turn = self.live.http2.opening.lock().await;
                if let Some(stream) = self.live.http2.take() {
                    return Ok(Connection::Http2(Box::new(stream)));
                }
                let stream = Stream::connect(&self.address, Offer::Either).await?;
                self.greet(stream, tasks).await
            }
        }
    }

    /// Speaks what TLS has agreed on.
    async fn greet(&self, stream: Stream, tasks: &Tasks) -> Result<Connection, ConnectError> {
        let http2 = stream.agreed_on_http2();
        self.live.agreed.note(http2);
        if !http2 {
            return Ok(Connection::Http1(Http1::open(stream)));
        }
        let origin = self.address.origin();
        let opened = self.live.http2.open(stream, origin, tasks).await?;
        Ok(Connection::Http2(Box::new(opened)))
    }

    fn offer(&self) -> Offer {
        match (self.spec.http2, self.address.tls) {
            (Some(true), _) => Offer::Http2,
            (None, true) => Offer::Either,
            (Some(false), _) | (None, false) => Offer::Http1,
        }
    }
}

async fn open_shared(
    pool: &Http2Pool,
    address: &Address,
    offer: Offer,
    tasks: &Tasks,
) -> Result<Connection, ConnectError> {
    let _turn = pool.opening.lock().await;
    if let Some(stream) = pool.take() {
        return Ok(Connection::Http2(Box::new(stream)));
    }
    let stream = Stream::connect(address, offer).await?;
    if address.tls && !stream.agreed_on_http2() {
        let message = "the server did not agree on HTTP/2";
        return Err(ConnectError::Tls(message.to_owned()));
    }
    let opened = pool.open(stream, address.origin(), tasks).await?;
    Ok(Connection::Http2(Box::new(opened)))
}

fn no_grpc() -> ConnectError {
    ConnectError::Io(std::io::Error::other("it does not speak gRPC"))
}
