use std::collections::VecDeque;
use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Request};
use http_body::Frame;
use protocol::openai::too_long;
use routing::retry::End;

use super::attempt::{Answered, Fault, Place, attempt, bad_upstream};
use crate::coding::{Coding, Unpacker};
use crate::metrics::UpstreamFault;
use crate::upstream::{ReceiveError, RequestBody, Via};

/// Of a refusal: the longest that is held and looked at. Errors have a few hundred bytes; what is longer is passed on as it
/// comes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The only status with which servers say that a request is longer than their model's context.
const TOO_LONG: u16 = 400;

/// What was read of an answer before it was known for whom it is. It is passed on as it came.
#[derive(Debug, Default)]
pub(super) struct Early {
    pub(super) parts: VecDeque<Frame<Bytes>>,
    /// Whether it says that the request is longer than the model's context.
    pub(super) too_long: bool,
}

impl Early {
    /// How much of the body it is.
    pub(super) fn bytes(&self) -> u64 {
        let data = self.parts.iter().filter_map(Frame::data_ref);
        data.map(|data| data.len() as u64).sum()
    }
}

/// An attempt that reads a refusal as far as that tells whether the request was too long, where somebody is there for
/// such requests.
pub(super) async fn looked_at(
    place: Place,
    request: (Box<Request<RequestBody>>, Via),
    looks: bool,
) -> Result<Answered, Fault> {
    let mut answered = attempt(place, request).await?;
    if looks && answered.status() == TOO_LONG && readable(answered.response.headers()) {
        match Box::pin(read(&mut answered)).await {
            Ok(early) => answered.early = Some(Box::new(early)),
            Err(error) => return Err(cut(answered, &error)),
        }
    }
    Ok(answered)
}

fn readable(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let short = length.is_none_or(|length| length <= REFUSAL_BYTES_MAX);
    short && (!headers.contains_key(CONTENT_ENCODING) || coding(headers).is_some())
}

/// None for what is not packed too; what is packed several times over is nothing that is known here.
fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut said = headers.get_all(CONTENT_ENCODING).iter();
    let only = said.next().filter(|_| said.next().is_none())?;
    Coding::of_name(only.to_str().ok()?)
}

/// Nothing of it has gone on yet, so this can be said in words.
fn cut(mut answered: Answered, error: &ReceiveError) -> Fault {
    tracing::debug!(error = base::chain(error), "refusal cut");
    let place = &mut answered.place;
    place.fault(End::Broken, UpstreamFault::cut);
    let name = &place.upstream.name;
    let message = format!("upstream `{name}` answered {TOO_LONG} and stopped in the middle of it");
    Fault {
        end: End::Broken,
        error: bad_upstream(message),
        connected_at: Some(answered.connected_at),
    }
}

/// Cancel-safe as the attempt is: the connection is dropped with it, and what was read of it with it.
async fn read(answered: &mut Answered) -> Result<Early, ReceiveError> {
    let mut early = Early::default();
    let mut body = BytesMut::new();
    while let Some(part) = poll_fn(|cx| answered.connection.poll_frame(cx)).await {
        let part = part?;
        if let Some(data) = part.data_ref() {
            body.extend_from_slice(data);
        }
        early.parts.push_back(part);
        if body.len() > REFUSAL_BYTES_MAX {
            return Ok(early);
        }
        // With a known length the end is known with the last byte.
        if answered.connection.is_end_stream() {
            break;
        }
    }
    let body = body.freeze();
    early.too_long = match coding(answered.response.headers()) {
        // What does not fit into the first part is no error to read, and no JSON when it is cut.
        Some(coding) => {
            let unpacked = Unpacker::new(coding).next(&mut body.clone());
            unpacked.is_ok_and(|part| part.is_some_and(|part| too_long(&part)))
        }
        None => too_long(&body),
    };
    Ok(early)
}
