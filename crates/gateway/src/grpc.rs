//! gRPC over hyper's h2: messages in five-byte envelopes, status in trailers.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::collections::VecDeque;

use base::ErrorKind;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use protocol::ApiError;
use protocol::status;

use crate::body::Payload;
use crate::coding::{Coding, Packer, Unpacker};
use crate::headers::{GRPC_ACCEPT_ENCODING, GRPC_ENCODING, GRPC_MESSAGE, GRPC_STATUS};
use crate::read::{Pieces, Reader};
use crate::reply::{Failure, Reply, Shape};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const ACCEPTED: HeaderValue = HeaderValue::from_static("identity, deflate, gzip");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A compression flag, then the length in big-endian.
const ENVELOPE_BYTES: usize = 5;
const PLAIN: u8 = 0;
const PACKED: u8 = 1;

/// Each piece of a message is a frame of h2, which costs both sides about 1 µs; up to here a copy costs less.
const ONE_PIECE_BYTES_MAX: usize = 8 << 10;

/// gRPC's code for an error that nobody classified.
const UNKNOWN: u16 = 2;

/// Of a refusal's text: clients in C++ and Python refuse an answer whose metadata exceed 8 KiB, and each byte can
/// become three.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Whether a request speaks gRPC: `application/grpc`, or with a codec such as `application/grpc+proto`.
pub(crate) fn asked(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    kind.as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A message of a call.
#[derive(Debug)]
pub(crate) struct Received {
    envelope: Bytes,
    /// What the envelope held, if that was packed.
    packed: Option<Pieces>,
    pub(crate) message: Pieces,
}

impl Received {
    /// The bytes that came.
    pub(crate) fn into_parts(self) -> VecDeque<Bytes> {
        let mut parts = self.packed.unwrap_or(self.message).into_parts();
        parts.push_front(self.envelope);
        parts
    }
}

/// The next message of a call; none at the end of the stream.
pub(crate) async fn next_message<B>(
    body: &mut Reader<B>,
    bytes_max: usize,
    coding: Option<Coding>,
) -> Result<Option<Received>, Failure>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let read = |error: crate::read::ReadError| error.into_failure(Shape::Grpc);
    let envelope = body.exactly(ENVELOPE_BYTES).await.map_err(read)?;
    if envelope.is_empty() {
        return Ok(None);
    }
    if envelope.len() < ENVELOPE_BYTES {
        return Err(truncated().into());
    }
    let mut fields = envelope.as_ref();
    let compressed = fields.get_u8();
    let bytes = fields.get_u32() as usize;
    if bytes > bytes_max {
        let message = format!("a message of {bytes} bytes is larger than {bytes_max}");
        return Err(ApiError::new(ErrorKind::Exhausted, message).into());
    }
    let pieces = body.pieces(bytes).await.map_err(read)?;
    if pieces.remaining() < bytes {
        return Err(truncated().into());
    }
    if compressed == PLAIN {
        return Ok(Some(Received {
            envelope,
            packed: None,
            message: pieces,
        }));
    }
    let Some(coding) = coding else {
        let message = "the message says that it is compressed, and grpc-encoding does not say how";
        return Err(ApiError::invalid(message).into());
    };
    let message = Box::pin(unpack(pieces.clone(), coding, bytes_max, body)).await?;
    Ok(Some(Received {
        envelope,
        packed: Some(pieces),
        message,
    }))
}

/// Unpacks one message, as far as a message may be long and as there is memory for it.
async fn unpack<B>(
    mut packed: Pieces,
    coding: Coding,
    bytes_max: usize,
    body: &Reader<B>,
) -> Result<Pieces, Failure> {
    let broken = |error: crate::coding::Unpackable| {
        ApiError::invalid(format!("the message could not be unpacked: {error}"))
    };
    let mut unpacker = Unpacker::new(coding);
    let mut found = Pieces::default();
    while packed.has_remaining() {
        tokio::task::consume_budget().await;
        let mut part = packed.copy_to_bytes(packed.chunk().len());
        while let Some(unpacked) = unpacker.next(&mut part).map_err(broken)? {
            if found.remaining() + unpacked.len() > bytes_max {
                let message = format!("an unpacked message is larger than {bytes_max} bytes");
                return Err(ApiError::new(ErrorKind::Exhausted, message).into());
            }
            body.hold(unpacked.len())
                .map_err(|error| error.into_failure(Shape::Grpc))?;
            found.push(unpacked);
            tokio::task::yield_now().await;
        }
    }
    unpacker.finish().map_err(broken)?;
    Ok(found)
}

/// How the client's messages are packed, if they say so.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, ApiError> {
    let Some(value) = headers.get(GRPC_ENCODING) else {
        return Ok(None);
    };
    let name = String::from_utf8_lossy(value.as_bytes());
    if name.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Coding::of_name(&name).map(Some).ok_or_else(|| {
        let name = protocol::shown::name(&name).into_owned();
        let message =
            format!("grpc-encoding `{name}` is not supported; use gzip, deflate or identity");
        ApiError::new(ErrorKind::Unsupported, message)
    })
}

/// The message of a unary call: exactly one.
pub(crate) async fn only_message<B>(
    body: &mut Reader<B>,
    bytes_max: usize,
    coding: Option<Coding>,
) -> Result<Received, Failure>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let Some(message) = next_message(body, bytes_max, coding).await? else {
        return Err(ApiError::invalid("the call has no message").into());
    };
    // Reading to the end also lets h2 close the stream without a reset.
    if !body
        .at_end()
        .await
        .map_err(|error| error.into_failure(Shape::Grpc))?
    {
        return Err(ApiError::invalid("the call takes one message, and got more").into());
    }
    Ok(message)
}

fn truncated() -> ApiError {
    ApiError::invalid("the stream ended in the middle of a message")
}

/// One message and an OK status.
pub(crate) fn answer(message: &impl prost::Message) -> Reply {
    answer_pieces(vec![message.encode_to_vec().into()])
}

/// One message that is already encoded, in parts.
pub(crate) fn answer_pieces(parts: Vec<Bytes>) -> Reply {
    let pieces = VecDeque::from(enveloped(parts));
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    Reply {
        response: head(Payload::Pieces(pieces), None),
        trailers: Some(trailers),
        counted_as: None,
    }
}

/// An encoded message in its envelope: in one piece if that is cheaper.
fn enveloped(parts: Vec<Bytes>) -> Vec<Bytes> {
    let bytes = parts.iter().map(Bytes::len).sum();
    if bytes <= ONE_PIECE_BYTES_MAX {
        let mut whole = BytesMut::with_capacity(ENVELOPE_BYTES + bytes);
        put_envelope(&mut whole, PLAIN, bytes);
        whole.extend(parts);
        return vec![whole.freeze()];
    }
    let mut pieces = Vec::with_capacity(parts.len() + 1);
    pieces.push(envelope(PLAIN, bytes));
    pieces.extend(parts.into_iter().filter(|part| !part.is_empty()));
    pieces
}

/// An encoded message in its envelope, packed if that is asked for.
pub(crate) async fn message(parts: Vec<Bytes>, packing: Option<Coding>) -> Vec<Bytes> {
    let Some(coding) = packing else {
        return enveloped(parts);
    };
    if parts.iter().all(Bytes::is_empty) {
        return enveloped(parts);
    }
    let mut packer = Packer::new(coding, parts.into());
    // The envelope names the length, so all of it is made before any of it is sent.
    let mut pieces = vec![Bytes::new()];
    while let Some(part) = packer.next_part() {
        pieces.push(part);
        if !packer.ended() {
            tokio::task::yield_now().await;
        }
    }
    pieces[0] = envelope(PACKED, pieces.iter().map(Bytes::len).sum());
    pieces
}

/// The same answer with its message packed; refusals have none.
pub(crate) async fn packed(mut reply: Reply, packing: Option<Coding>) -> Reply {
    let Some(coding) = packing else { return reply };
    match std::mem::take(reply.response.body_mut()) {
        Payload::Pieces(mut pieces) => {
            if let Some(first) = pieces.front_mut() {
                first.advance(ENVELOPE_BYTES);
            }
            pieces.retain(|piece| !piece.is_empty());
            let parts = message(pieces.into(), packing).await;
            *reply.response.body_mut() = Payload::Pieces(parts.into());
            let name = HeaderValue::from_static(coding.name());
            reply.response.headers_mut().insert(GRPC_ENCODING, name);
        }
        other => *reply.response.body_mut() = other,
    }
    reply
}

/// How answers are packed: as the requests are, which is what gRPC's own servers do, if the client takes it. That it
/// could is said by every client, so that alone asks for nothing.
pub(crate) fn packing(headers: &HeaderMap, coding: Option<Coding>) -> Option<Coding> {
    let coding = coding?;
    let mut accepted = headers.get_all(GRPC_ACCEPT_ENCODING).iter().peekable();
    let silent = accepted.peek().is_none();
    let takes = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| Coding::of_name(name) == Some(coding));
    (silent || takes).then_some(coding)
}

/// A head; messages and status follow.
pub(crate) fn streamed(payload: Payload, packing: Option<Coding>) -> Reply {
    Reply {
        response: head(payload, packing),
        trailers: None,
        counted_as: None,
    }
}

/// What an answer's trailers, or its head when nothing else comes, say of the call: a code, and why.
pub(crate) fn status(headers: &HeaderMap) -> Option<u16> {
    let code = headers.get(GRPC_STATUS)?.to_str().ok()?;
    // What is no number is no success.
    Some(code.trim().parse().unwrap_or(UNKNOWN))
}

/// The trailers of a call that failed here.
pub(crate) fn trailers(error: &ApiError) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    set_status(&mut trailers, error);
    trailers
}

/// How a stream ends: its trailers, and the public message if it failed.
pub(crate) fn end(outcome: Result<(), ApiError>) -> (HeaderMap, Option<String>) {
    let mut trailers = HeaderMap::with_capacity(2);
    match outcome {
        Ok(()) => {
            trailers.insert(GRPC_STATUS, OK);
            (trailers, None)
        }
        Err(error) => (self::trailers(&error), Some(error.message)),
    }
}

fn set_status(headers: &mut HeaderMap, error: &ApiError) {
    let code = status::of(error.kind).grpc as u8;
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
    if let Ok(message) = HeaderValue::try_from(percent_encode(&error.message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

fn envelope(flag: u8, bytes: usize) -> Bytes {
    let mut envelope = BytesMut::with_capacity(ENVELOPE_BYTES);
    put_envelope(&mut envelope, flag, bytes);
    envelope.freeze()
}

fn put_envelope(into: &mut BytesMut, flag: u8, bytes: usize) {
    into.put_u8(flag);
    // Above 4 GiB the client sees a length that does not fit; answers are bounded far below by memory.
    into.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
}

/// A status without a message: HTTP calls it an answer of headers only.
pub(crate) fn refusal(error: &ApiError) -> Reply {
    let status = status::of(error.kind);
    let mut response = head(Payload::Empty, None);
    set_status(response.headers_mut(), error);
    Reply {
        response,
        trailers: None,
        counted_as: Some(status.http),
    }
}

fn head(payload: Payload, packing: Option<Coding>) -> Response<Payload> {
    let mut response = Response::new(payload);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    let encoding = packing.map_or(IDENTITY, |coding| HeaderValue::from_static(coding.name()));
    headers.insert(GRPC_ENCODING, encoding);
    headers.insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
    response
}

/// Everything outside space to `~`, and `%` itself, as `%XX` (the specification's `Percent-Encoded`); what is too long
/// is cut.
fn percent_encode(message: &str) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let (shown, rest) = message.split_at(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    let mark = if rest.is_empty() { "" } else { "…" };
    let mut text = String::with_capacity(shown.len());
    for byte in shown.bytes().chain(mark.bytes()) {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(HEX[usize::from(byte >> 4)]);
            text.push(HEX[usize::from(byte & 15)]);
        }
    }
    text
}

/// The text that was encoded so; what is no code stands for itself.
pub(crate) fn percent_decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
