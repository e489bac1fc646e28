//! Which HTTP a client speaks, told by its first bytes without taking them.
//!
//! hyper-util finds out by reading 24 bytes and putting them back. hyper's own buffer then holds a part of a head, and
//! doubles: 16 KiB for as long as the connection is open.

use std::future::pending;
use std::pin::pin;
use std::time::Instant;

use base::Clock;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::streams::Streams;
use super::{Connections, FIRST_HEAD};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    /// Too few bytes came to tell.
    Either,
}

/// How connections are served, for each.
#[derive(Debug)]
pub(super) struct Builders {
    http1: auto::Builder<Streams>,
    http2: auto::Builder<Streams>,
    either: auto::Builder<Streams>,
}

impl Builders {
    pub(super) fn new(either: auto::Builder<Streams>) -> Self {
        Self {
            http1: either.clone().http1_only(),
            http2: either.clone().http2_only(),
            either,
        }
    }

    pub(super) fn of(&self, spoken: Spoken) -> &auto::Builder<Streams> {
        match spoken {
            Spoken::Http1 => &self.http1,
            Spoken::Http2 => &self.http2,
            Spoken::Either => &self.either,
        }
    }
}

/// Waits for a client's first bytes, no longer than for a head; none if nothing came, or the node stops meanwhile.
pub(super) async fn heard(
    stream: &TcpStream,
    connections: &Connections,
    opened: Instant,
    clock: &Clock,
) -> Option<Spoken> {
    let mut first = [0; PREFACE.len()];
    let mut stop = connections.stop.subscribe();
    let stopped = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            pending::<()>().await;
        }
        let age = clock.now().saturating_duration_since(opened);
        sleep(FIRST_HEAD.saturating_sub(age)).await;
    };
    let mut stopped = pin!(stopped);
    // Cancel-safe: nothing is taken out of the socket.
    tokio::select! {
        biased;
        peeked = stream.peek(&mut first) => match peeked {
            Ok(0) | Err(_) => None,
            Ok(bytes) => Some(spoken(&first[..bytes])),
        },
        () = sleep(connections.head_timeout) => None,
        () = stopped.as_mut() => None,
    }
}

/// How a client of HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `POST` begins like the preface; no method is `PRI`.
fn spoken(first: &[u8]) -> Spoken {
    match first {
        b"P" | b"PR" => Spoken::Either,
        [b'P', b'R', b'I', ..] => Spoken::Http2,
        _ => Spoken::Http1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (first, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Spoken::Http1),
            (b"POST / HTTP/1.1\r\n", Spoken::Http1),
            (b"PROPFIND /", Spoken::Http1),
            (b"P", Spoken::Either),
            (b"PR", Spoken::Either),
            (PREFACE, Spoken::Http2),
        ] {
            assert_eq!(spoken(first), expected, "{first:?}");
        }
    }
}
