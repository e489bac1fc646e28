use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body;
use tokio::time::timeout;

/// How long a refused client may go on sending; nginx's `lingering_timeout` is 5 s.
const LINGER: Duration = Duration::from_secs(2);

/// A body of more than so many times what is allowed is not worth receiving to be polite.
const TIMES_MAX: usize = 4;

/// How a client sends its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// In a stream of its own (h2), which can be ended without harm to the answer.
    Aside,
    AtOnce,
    /// After `100 Continue`, which is sent when the body is first asked for; curl does so with large bodies.
    WhenAsked,
}

impl Sending {
    pub(super) fn of(head: &Parts) -> Self {
        if head.version >= Version::HTTP_2 {
            Self::Aside
        } else if head.headers.contains_key(EXPECT) {
            Self::WhenAsked
        } else {
            Self::AtOnce
        }
    }

    /// Whether a refusal could be lost: over HTTP/1.1, closing while the client still sends makes the kernel reset the
    /// connection, and the client drops what it had received.
    pub(super) fn loses_refusals(self, asked_for: bool) -> bool {
        match self {
            Self::Aside => false,
            Self::AtOnce => true,
            Self::WhenAsked => asked_for,
        }
    }
}

/// Receives the rest of a refused request's body and forgets it, within bounds.
pub(super) async fn linger<B>(body: &mut B, bytes_max: usize)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut room = bytes_max.saturating_mul(TIMES_MAX);
    if body.size_hint().lower() > room as u64 {
        return;
    }
    let receiving = async {
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            if bytes > room {
                return;
            }
            room -= bytes;
        }
    };
    // Too slow is answered like the rest: the client may still get it.
    let _in_time = timeout(LINGER, receiving).await;
}
