//! From an upstream's description to a connection for one request.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use base::Tasks;
use tokio::time::timeout;

use super::connection::{ConnectError, Connection};
use super::http1::{Http1, Stream};
use super::http2::Http2Pool;
use super::tls::Offer;
use super::{Address, Upstream};

/// A dial that takes longer waits for a packet that was lost, or for somebody far away; all others end in the pool, which
/// grows with the callers.
const DIAL_USUAL: Duration = Duration::from_millis(50);

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

    /// A new connection, or one that was opened or came back meanwhile, and may have been closed since: then the second
    /// is true.
    pub(crate) async fn open(
        &self,
        via: Via,
        (tasks, now): (&Tasks, Instant),
    ) -> Result<(Connection, bool), ConnectError> {
        let mut dial = pin!(self.dial(via, tasks));
        if via == Via::Grpc || self.offer() == Offer::Http2 {
            return Ok((dial.await?, false));
        }
        if let Ok(opened) = timeout(DIAL_USUAL, &mut dial).await {
            return Ok((opened?, false));
        }
        tokio::select! {
            // Both are dropped with what they hold: an unfinished connection is closed, and nothing leaves the pool.
            opened = dial => Ok((opened?, false)),
            connection = self.given(now) => Ok((Connection::Http1(connection), true)),
        }
    }

    /// The next connection that comes back and was not closed meanwhile.
    async fn given(&self, now: Instant) -> Http1 {
        loop {
            let mut connection = self.live.pool.given(now).await;
            if poll_fn(|cx| Poll::Ready(connection.reusable(cx))).await {
                return connection;
            }
        }
    }

    async fn dial(&self, via: Via, tasks: &Tasks) -> Result<Connection, ConnectError> {
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

#[cfg(test)]
mod tests {
    use base::Clock;
    use protocol::resource::UpstreamSpec;
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    /// A listener whose backlog is full: whoever connects waits for a second before the first packet is sent again.
    async fn full() -> (String, Vec<TcpStream>, tokio::net::TcpListener) {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = "127.0.0.1:0".parse().expect("an address");
        socket.bind(any).expect("a port");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut held = Vec::new();
        let wait = std::time::Duration::from_millis(100);
        while let Ok(stream) = tokio::time::timeout(wait, TcpStream::connect(address)).await {
            held.push(stream.expect("a loopback"));
            assert!(held.len() < 64, "the backlog has no end");
        }
        (format!("http://{address}"), held, listener)
    }

    #[tokio::test]
    async fn a_connection_that_comes_back_is_quicker_than_a_full_backlog() {
        let (url, _held, listener) = full().await;
        let spec: UpstreamSpec =
            serde_json::from_value(serde_json::json!({ "url": url })).expect("a spec");
        let upstream = Upstream::new("short", &spec, 0).expect("valid");
        let (clock, tasks) = (Clock::manual(), Tasks::new());
        // Somebody before got through.
        let (_served, _) = listener.accept().await.expect("one waits");
        let open = || upstream.open(Via::Http, (&tasks, clock.now()));
        let (connection, from_pool) = open().await.expect("there is a place");
        assert!(!from_pool);
        let Connection::Http1(connection) = connection else {
            unreachable!("nothing else was offered");
        };
        let back = async { upstream.live.pool.give(connection, clock.now()) };
        let (opened, ()) = tokio::join!(open(), back);
        assert!(opened.expect("the same").1);
    }
}
