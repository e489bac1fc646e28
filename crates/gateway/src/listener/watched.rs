use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base::Clock;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::Activity;

/// What waits for the end of a turn at most: the answers of a few dozen small calls. More leaves at once.
const GATHERED_MAX: usize = 32 << 10;

/// Of a first write that waits: the answer of a small call, with room for a second one.
const GATHERED_MIN: usize = 4 << 10;

/// Parts that one system call takes. h2 has two at a time, HTTP/1.1 at most as many as the kernel is given here.
const PARTS_MAX: usize = 16;

/// A client's socket that tells [`Activity`] when it takes no more bytes, and when it takes some again.
///
/// hyper stops asking for an answer's next part once its buffer is full, so nothing else in a request would notice. As
/// long as the client keeps up, this costs one comparison per write.
#[derive(Debug)]
pub(super) struct Watched<S>(Arc<Mutex<Socket<S>>>);

/// What was written in a turn of a connection and has not left.
///
/// h2 writes whenever a frame does not fit its buffer beside the others, and a message of more than 255 bytes never does:
/// two system calls, two packets and two readings by the client for each unary call, however many are answered in the
/// same turn. So a connection of HTTP/2 says when its turn is over.
#[derive(Debug)]
pub(super) struct Outgoing<S>(Arc<Mutex<Socket<S>>>);

#[derive(Debug)]
struct Socket<S> {
    stream: S,
    activity: Activity,
    clock: Clock,
    /// Whether the last write was not possible, which [`Activity`] knows then.
    blocked: bool,
    /// Whether small writes wait for the end of the turn.
    gathers: bool,
    /// Those that do. It takes no memory while none does: most connections are idle.
    gathered: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    pub(super) fn new(stream: S, activity: Activity, clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(Socket {
            stream,
            activity,
            clock,
            blocked: false,
            gathers: false,
            gathered: Vec::new(),
        })))
    }

    /// From here on small writes leave when [`Outgoing`] is flushed.
    pub(super) fn gather(&self) -> Outgoing<S> {
        self.0.lock().gathers = true;
        Outgoing(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_empty(cx)
    }
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if self.gathers && self.gathered.len() + bytes <= GATHERED_MAX {
            if self.gathered.is_empty() {
                self.gathered.reserve(bytes.max(GATHERED_MIN));
            }
            for part in parts {
                self.gathered.extend_from_slice(part);
            }
            return Poll::Ready(Ok(bytes));
        }
        loop {
            let earlier = self.gathered.len();
            let written = ready!(self.poll_pass(cx, parts))?;
            if written >= earlier {
                self.gathered = Vec::new();
                if written > earlier || earlier == 0 {
                    return Poll::Ready(Ok(written - earlier));
                }
            } else {
                self.gathered.drain(..written);
            }
        }
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(self.poll_pass(cx, &[]))?;
            self.gathered.drain(..written);
        }
        self.gathered = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// What waits and these after it, as far as the client takes them in one go.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let written = match (&self.gathered[..], parts) {
            ([], [part]) => stream.poll_write(cx, part),
            ([], parts) => stream.poll_write_vectored(cx, parts),
            (gathered, []) => stream.poll_write(cx, gathered),
            (gathered, parts) => {
                let mut all = [IoSlice::new(&[]); PARTS_MAX];
                all[0] = IoSlice::new(gathered);
                let taken = parts.len().min(PARTS_MAX - 1);
                all[1..=taken].copy_from_slice(&parts[..taken]);
                stream.poll_write_vectored(cx, &all[..=taken])
            }
        };
        let blocked = written.is_pending();
        if blocked != self.blocked {
            self.blocked = blocked;
            let now = self.clock.now();
            if blocked {
                self.activity.blocked(now);
            } else {
                self.activity.unblocked(now);
            }
        }
        match written {
            Poll::Ready(Ok(0)) if !self.gathered.is_empty() => {
                Poll::Ready(Err(io::ErrorKind::WriteZero.into()))
            }
            written => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.lock();
        if socket.gathers {
            return Poll::Ready(Ok(())); // when the turn is over
        }
        Pin::new(&mut socket.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.lock();
        ready!(socket.poll_empty(cx))?;
        Pin::new(&mut socket.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_that_wait_for_the_client_are_not_idleness() {
        let (near, mut far) = tokio::io::duplex(4);
        let clock = Clock::manual();
        let activity = Activity::new(clock.now());
        let mut socket = Watched::new(near, activity.clone(), clock.clone());
        let mut write = |bytes: &[u8]| {
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            Pin::new(&mut socket)
                .poll_write(cx, bytes)
                .map(|written| written.expect("open"))
        };
        let minute = Duration::from_secs(60);
        let see = |expected: (Duration, Option<Duration>)| {
            let now = clock.now();
            assert_eq!((activity.idle(now), activity.stalled(now)), expected);
        };
        assert_eq!(write(b"abcd"), Poll::Ready(4));
        clock.advance(minute);
        see((minute, None));
        assert_eq!(write(b"efgh"), Poll::Pending);
        clock.advance(minute);
        see((Duration::ZERO, Some(minute)));
        assert_eq!(write(b"efgh"), Poll::Pending, "still nothing read");
        see((Duration::ZERO, Some(minute)));

        let mut buffer = [0; 2];
        far.read_exact(&mut buffer).await.expect("bytes");
        assert_eq!(write(b"efgh"), Poll::Ready(2));
        see((Duration::ZERO, None));
        assert_eq!(write(b"gh"), Poll::Pending);
        clock.advance(minute);
        see((Duration::ZERO, Some(minute)));
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_in_one_piece_and_whole() {
        let (near, mut far) = tokio::io::duplex(3 * GATHERED_MAX);
        let clock = Clock::manual();
        let activity = Activity::new(clock.now());
        let mut socket = Watched::new(near, activity, clock);
        let outgoing = socket.gather();
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let large = vec![b'x'; GATHERED_MAX];
        let (mut expected, mut arrived) = (Vec::new(), Vec::new());
        for (part, left) in [
            (&b"ab"[..], 0),
            (b"cd", 0),
            // Too much to wait, and what waited goes before it.
            (&large, 4 + GATHERED_MAX),
            (b"ef", 4 + GATHERED_MAX),
        ] {
            let written = Pin::new(&mut socket).poll_write(cx, part);
            assert!(matches!(written, Poll::Ready(Ok(bytes)) if bytes == part.len()));
            assert!(Pin::new(&mut socket).poll_flush(cx).is_ready());
            expected.extend_from_slice(part);
            take(&mut far, &mut arrived);
            assert_eq!(arrived.len(), left);
        }
        assert!(matches!(outgoing.poll_flush(cx), Poll::Ready(Ok(()))));
        assert_eq!(socket.0.lock().gathered.capacity(), 0);
        take(&mut far, &mut arrived);
        assert!(arrived == expected);
    }

    /// All that is there to be read.
    fn take(far: &mut tokio::io::DuplexStream, into: &mut Vec<u8>) {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut part = [0; 1 << 10];
        let mut buffer = ReadBuf::new(&mut part);
        while Pin::new(&mut *far).poll_read(cx, &mut buffer).is_ready() {
            into.extend_from_slice(buffer.filled());
            buffer.clear();
        }
    }
}
