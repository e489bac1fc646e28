//! Reads a request's body, whatever the frames it comes in: each byte is copied at most once on its way to a tensor.

mod budget;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::ErrorKind;
use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use protocol::{ApiError, BufferPool};

use crate::reply::{Failure, Shape};

pub(crate) use budget::{Budget, Held};

/// A body that announces more than this takes its share of the budget before any of it is read; a smaller one usually
/// arrives whole.
const PREPAID_BYTES: usize = 64 << 10;

/// When to try again after there was no memory for a body: others settle all the time.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// A body that is read from the front.
#[derive(Debug)]
pub(crate) struct Reader<B> {
    body: B,
    /// Arrived and not handed out.
    ahead: Bytes,
    /// Arrived so far.
    arrived: usize,
    bytes_max: usize,
    held: Arc<Held>,
    /// Taken from the budget and not arrived.
    prepaid: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the request body is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the request bodies being served fill the {bytes_max} bytes there are for them")]
    Full { bytes_max: usize },
    /// The connection, not the content.
    #[error("the request body could not be read: {0}")]
    Broken(String),
}

impl ReadError {
    /// Triton answers a body over its limit with 400, and its clients' tests look for these words; OpenAI has 413.
    pub(crate) fn into_failure(self, shape: Shape) -> Failure {
        match (self, shape) {
            (Self::TooLarge { bytes_max }, Shape::OpenAi | Shape::Anthropic) => {
                let message = Self::TooLarge { bytes_max }.to_string();
                let error = ApiError::invalid(message).with_code("request_too_large");
                Failure::with_status(error, StatusCode::PAYLOAD_TOO_LARGE)
            }
            (Self::TooLarge { bytes_max }, Shape::Oip) => ApiError::invalid(format!(
                "request size exceeds the maximum allowed input size of {bytes_max} bytes; \
                 raise bodyBytesMax of the Node to allow it"
            ))
            .into(),
            (error @ Self::TooLarge { .. }, Shape::Grpc) => {
                ApiError::new(ErrorKind::Exhausted, error.to_string()).into()
            }
            (error @ Self::Full { .. }, _) => {
                ApiError::new(ErrorKind::Unavailable, error.to_string())
                    .with_code("body_memory_full")
                    .retry_after(FULL_RETRY)
                    .into()
            }
            (error @ Self::Broken(_), _) => ApiError::invalid(error.to_string()).into(),
        }
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    /// Refuses a body that announces more than is allowed, or than there is memory for, before any of it is read.
    /// `held` is dropped when the body is in memory no more.
    pub(crate) fn new(body: B, bytes_max: usize, held: Arc<Held>) -> Result<Self, ReadError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > bytes_max {
            return Err(ReadError::TooLarge { bytes_max });
        }
        let mut prepaid = 0;
        if announced > PREPAID_BYTES {
            held.add(announced)?;
            prepaid = announced;
        }
        Ok(Self {
            body,
            ahead: Bytes::new(),
            arrived: 0,
            bytes_max,
            held,
            prepaid,
        })
    }

    /// Makes sure that something is ahead; false at the end of the body.
    async fn more(&mut self) -> Result<bool, ReadError> {
        while self.ahead.is_empty() {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            let Some(frame) = frame else { return Ok(false) };
            let frame = frame.map_err(|error| ReadError::Broken(base::chain(&error)))?;
            // Trailers say nothing that we need.
            if let Ok(data) = frame.into_data() {
                self.arrived = self.arrived.saturating_add(data.len());
                if self.arrived > self.bytes_max {
                    return Err(ReadError::TooLarge {
                        bytes_max: self.bytes_max,
                    });
                }
                let paid = self.prepaid.min(data.len());
                self.prepaid -= paid;
                if data.len() > paid {
                    self.held.add(data.len() - paid)?;
                }
                self.ahead = data;
            }
        }
        Ok(true)
    }

    /// The whole rest, contiguous; not copied when it came in one frame.
    pub(crate) async fn rest(&mut self) -> Result<Bytes, ReadError> {
        if !self.more().await? {
            return Ok(Bytes::new());
        }
        let first = std::mem::take(&mut self.ahead);
        if self.body.is_end_stream() || !self.more().await? {
            return Ok(first);
        }
        let left = usize::try_from(self.body.size_hint().lower()).unwrap_or(0);
        let mut whole =
            BytesMut::with_capacity((first.len() + self.ahead.len() + left).min(self.bytes_max));
        whole.extend_from_slice(&first);
        while self.more().await? {
            whole.extend_from_slice(&self.ahead);
            self.ahead.clear();
        }
        Ok(whole.freeze())
    }

    /// The whole rest in an aligned buffer.
    pub(crate) async fn whole(&mut self, pool: &BufferPool) -> Result<Bytes, ReadError> {
        let announced = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut buffer = pool.take(
            announced
                .saturating_add(self.ahead.len())
                .min(self.bytes_max),
        );
        while self.more().await? {
            buffer.extend_from_slice(&self.ahead);
            self.ahead.clear();
        }
        Ok(buffer.freeze())
    }

    /// The next `bytes` bytes contiguous, or fewer if the body ends; not copied when they came in one frame.
    pub(crate) async fn exactly(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        if bytes == 0 || !self.more().await? {
            return Ok(Bytes::new());
        }
        if self.ahead.len() >= bytes {
            return Ok(self.ahead.split_to(bytes));
        }
        let mut whole = BytesMut::with_capacity(bytes.min(self.room()));
        while whole.len() < bytes && self.more().await? {
            let part = self.ahead.len().min(bytes - whole.len());
            whole.extend_from_slice(&self.ahead.split_to(part));
        }
        Ok(whole.freeze())
    }

    /// The next `bytes` bytes in an aligned buffer, or fewer if the body ends.
    pub(crate) async fn aligned(
        &mut self,
        bytes: usize,
        pool: &BufferPool,
    ) -> Result<Bytes, ReadError> {
        // A claim beyond what may still come is not believed: it would allocate for nothing.
        let mut buffer = pool.take(bytes.min(self.room()));
        while buffer.len() < bytes && self.more().await? {
            let part = self.ahead.len().min(bytes - buffer.len());
            buffer.extend_from_slice(&self.ahead[..part]);
            self.ahead.advance(part);
        }
        Ok(buffer.freeze())
    }

    /// The next `bytes` bytes as they came, or fewer if the body ends.
    pub(crate) async fn pieces(&mut self, bytes: usize) -> Result<Pieces, ReadError> {
        let mut pieces = Pieces::default();
        while pieces.bytes < bytes && self.more().await? {
            let part = self.ahead.len().min(bytes - pieces.bytes);
            pieces.push(self.ahead.split_to(part));
        }
        Ok(pieces)
    }

    /// Counts anew, for the next message of a stream. `held` is dropped when that message is in memory no more.
    pub(crate) fn begin_message(&mut self, held: Arc<Held>) -> Result<(), ReadError> {
        self.arrived = self.ahead.len();
        // Was paid out of the first message's share, which is given back with it.
        self.prepaid = 0;
        held.add(self.ahead.len())?;
        self.held = held;
        Ok(())
    }

    /// Whether the body has ended.
    pub(crate) async fn at_end(&mut self) -> Result<bool, ReadError> {
        Ok(!self.more().await?)
    }

    /// What has arrived ahead plus what may still come.
    fn room(&self) -> usize {
        self.bytes_max - self.arrived + self.ahead.len()
    }
}

impl<B> Reader<B> {
    /// Counts bytes that what was read has become.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), ReadError> {
        self.held.add(bytes)
    }
}

/// Parts of a body, read one after another as if they were one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pieces {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    pub(crate) fn push(&mut self, part: Bytes) {
        self.bytes += part.len();
        self.parts.push_back(part);
    }

    pub(crate) fn into_parts(self) -> VecDeque<Bytes> {
        self.parts
    }

    /// The same bytes to look at, without taking them.
    pub(crate) fn peek(&self) -> Peek<'_> {
        let mut parts = self.parts.iter();
        Peek {
            chunk: parts.next().map_or(&[], |part| part),
            parts,
            left: self.bytes,
        }
    }
}

/// A look at [`Pieces`] that leaves them as they are.
#[derive(Debug)]
pub(crate) struct Peek<'a> {
    chunk: &'a [u8],
    parts: std::collections::vec_deque::Iter<'a, Bytes>,
    left: usize,
}

impl Buf for Peek<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.chunk
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "advanced past the end");
        self.left -= count;
        while count >= self.chunk.len() {
            count -= self.chunk.len();
            let Some(next) = self.parts.next() else {
                self.chunk = &[];
                return;
            };
            self.chunk = next;
        }
        self.chunk = &self.chunk[count..];
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "advanced past the end");
        self.bytes -= count;
        while count > 0 {
            let Some(first) = self.parts.front_mut() else {
                return;
            };
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
