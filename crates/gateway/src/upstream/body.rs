use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use protocol::ApiError;

/// What a request carries to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// In memory: it can be sent again.
    Whole(Bytes),
    /// In memory, in parts.
    Parts(VecDeque<Bytes>),
    /// Passed on as it arrives, and gone then.
    Streamed(Streamed),
}

/// A body that nobody holds in memory. Boxed: a form and a stream of calls are different readers.
pub(crate) struct Streamed(Pin<Box<dyn Body<Data = Bytes, Error = Broken> + Send>>);

/// Why a body that is passed on stops before its end: its client is gone, or sent what may not be passed on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the request's body ended too early: {0}")]
pub(crate) struct Broken(pub(crate) ApiError);

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    /// The same again for another attempt, sharing the memory; none if it is passed on as it arrives.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Parts(parts) => Some(Self::Parts(parts.clone())),
            Self::Streamed(_) => None,
        }
    }

    pub(crate) fn streamed(body: impl Body<Data = Bytes, Error = Broken> + Send + 'static) -> Self {
        Self::Streamed(Streamed(Box::pin(body)))
    }
}

impl Streamed {
    /// How long it is, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.as_mut().poll_frame(cx)
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed")
            .field("ended", &self.0.is_end_stream())
            .finish_non_exhaustive()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let part = match self.get_mut() {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then_some(bytes)
            }
            Self::Parts(parts) => parts.pop_front(),
            Self::Streamed(body) => return body.poll_frame(cx),
        };
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Parts(parts) => parts.is_empty(),
            Self::Streamed(body) => body.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Parts(parts) => {
                SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum())
            }
            Self::Streamed(body) => body.0.size_hint(),
        }
    }
}
