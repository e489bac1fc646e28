use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::Activity;

/// A client's socket that tells [`Activity`] when it takes no more bytes, and when it takes some again.
///
/// hyper stops asking for an answer's next part once its buffer is full, so nothing else in a request would notice. As
/// long as the client keeps up, this costs one comparison per write.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Activity,
    clock: Clock,
    /// Whether the last write was not possible, which [`Activity`] knows then.
    blocked: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Activity, clock: Clock) -> Self {
        Self {
            stream,
            activity,
            clock,
            blocked: false,
        }
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
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
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buffer);
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, buffers);
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
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
}
