//! An HTTP/1.1 answer out of bytes (RFC 9112). Pure: bytes in, a head or parts of a body out, none of them copied.

mod fuzz;

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use hyper::ext::ReasonPhrase;

pub use fuzz::fuzz_http_answer;

/// Lines of a head, as in hyper; no server of models sends a tenth of it.
const HEADERS_MAX: usize = 100;

/// What we add to an answer on its way: a map that grows is hashed anew.
const HEADERS_ADDED: usize = 2;

/// A head, or the trailers, beyond this is an attack or a mistake. As over HTTP/2.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Of a chunk's size in hex with whatever extensions it has.
const SIZE_LINE_MAX: usize = 4 << 10;

/// Why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("no HTTP: {0}")]
    Head(#[from] httparse::Error),
    #[error("its head is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    #[error("it switches protocols without being asked to")]
    Switches,
    #[error("its length cannot be told")]
    Length,
    #[error("a chunk of its body is malformed")]
    Chunk,
}

/// An answer's head, and how its body goes on.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    pub(super) body: Body,
    /// Whether the connection may serve another request after it.
    pub(super) keeps: bool,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// After so many bytes more.
    Length(u64),
    Chunked(Chunk),
    /// With the connection.
    Close,
    Ended,
}

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    /// The line's end behind a chunk's data.
    DataEnd,
    Trailers,
}

/// What came of a body.
#[derive(Debug)]
pub(super) enum Part {
    Frame(Frame<Bytes>),
    End,
    /// Nothing can be said before more bytes have come.
    More,
}

/// The answer at the front of `ahead`, which is taken out of it; none if its head is not whole yet. Answers before the
/// answer (1xx) are skipped.
pub(super) fn head(ahead: &mut Bytes, method: &Method) -> Result<Option<Answer>, Malformed> {
    while !ahead.is_empty() {
        let Some((head, length, new)) = parse(ahead)? else {
            return match ahead.len() {
                HEAD_BYTES_MAX.. => Err(Malformed::HeadTooLong),
                _ => Ok(None),
            };
        };
        ahead.advance(length);
        match head.status().as_u16() {
            101 => return Err(Malformed::Switches),
            100..=199 => {}
            _ => {
                return Ok(Some(Answer {
                    body: framing(&head, new, method)?,
                    keeps: keeps(head.headers(), new),
                    head,
                }));
            }
        }
    }
    Ok(None)
}

/// A head, its bytes, and whether it is HTTP/1.1 rather than 1.0.
type Parsed = (Response<()>, usize, bool);

fn parse(ahead: &Bytes) -> Result<Option<Parsed>, Malformed> {
    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, ahead, &mut lines)?;
    let httparse::Status::Complete(length) = status else {
        return Ok(None);
    };
    let mut response = Response::new(());
    let code = parsed.code.unwrap_or_default();
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| httparse::Error::Status)?;
    let reason = parsed.reason.unwrap_or_default();
    if Some(reason) != response.status().canonical_reason()
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    *response.headers_mut() = headers(ahead, parsed.headers)?;
    Ok(Some((response, length, parsed.version == Some(1))))
}

fn headers(ahead: &Bytes, lines: &[httparse::Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(lines.len() + HEADERS_ADDED);
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(ahead.slice_ref(line.value));
        headers.append(
            name.map_err(|_| httparse::Error::HeaderName)?,
            value.map_err(|_| httparse::Error::HeaderValue)?,
        );
    }
    Ok(headers)
}

/// RFC 9112 §6.3.
fn framing(head: &Response<()>, new: bool, method: &Method) -> Result<Body, Malformed> {
    let bodiless = matches!(head.status().as_u16(), 204 | 304) || *method == Method::HEAD;
    if bodiless {
        return Ok(Body::Ended);
    }
    let headers = head.headers();
    if let Some(last) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        if !new {
            return Err(Malformed::Length);
        }
        let last = last.as_bytes().rsplit(|byte| *byte == b',').next();
        let chunked = last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        return Ok(if chunked {
            Body::Chunked(Chunk::Size)
        } else {
            Body::Close
        });
    }
    let mut length = None;
    let said = headers.get_all(CONTENT_LENGTH).iter();
    for one in said.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let one = decimal(one.trim_ascii()).ok_or(Malformed::Length)?;
        if length.is_some_and(|before| before != one) {
            return Err(Malformed::Length);
        }
        length = Some(one);
    }
    Ok(match length {
        None => Body::Close,
        Some(0) => Body::Ended,
        Some(bytes) => Body::Length(bytes),
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

fn keeps(headers: &HeaderMap, new: bool) -> bool {
    let mut keeps = new;
    let said = headers.get_all(CONNECTION).iter();
    for word in said.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let word = word.trim_ascii();
        if word.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keeps |= word.eq_ignore_ascii_case(b"keep-alive");
    }
    keeps
}

impl Body {
    pub(super) fn ended(self) -> bool {
        self == Self::Ended
    }

    /// The next part, taken out of `ahead`.
    pub(super) fn next(&mut self, ahead: &mut Bytes) -> Result<Part, Malformed> {
        match self {
            Self::Ended => Ok(Part::End),
            _ if ahead.is_empty() => Ok(Part::More),
            Self::Close => Ok(Part::Frame(Frame::data(std::mem::take(ahead)))),
            Self::Length(left) => {
                let data = take(ahead, left);
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Part::Frame(Frame::data(data)))
            }
            Self::Chunked(chunk) => {
                let part = chunk.next(ahead)?;
                let last = match &part {
                    Part::Frame(frame) => frame.is_trailers(),
                    Part::End => true,
                    Part::More => false,
                };
                if last {
                    *self = Self::Ended;
                }
                Ok(part)
            }
        }
    }
}

/// As much of `left` as there is.
fn take(ahead: &mut Bytes, left: &mut u64) -> Bytes {
    let bytes = usize::try_from(*left).unwrap_or(usize::MAX);
    let data = ahead.split_to(bytes.min(ahead.len()));
    *left -= data.len() as u64;
    data
}

impl Chunk {
    fn next(&mut self, ahead: &mut Bytes) -> Result<Part, Malformed> {
        while !ahead.is_empty() {
            match self {
                Self::Size => {
                    let Some(line) = line(ahead)? else {
                        return Ok(Part::More);
                    };
                    *self = match size(&line)? {
                        0 => Self::Trailers,
                        bytes => Self::Data(bytes),
                    };
                }
                Self::Data(left) => {
                    let data = take(ahead, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    // Its end is mostly here too; left for later it would be a wake-up of its own.
                    self.pass_end(ahead)?;
                    return Ok(Part::Frame(Frame::data(data)));
                }
                Self::DataEnd => {
                    self.pass_end(ahead)?;
                    if *self == Self::DataEnd {
                        return Ok(Part::More);
                    }
                }
                Self::Trailers => return trailers(ahead),
            }
        }
        Ok(Part::More)
    }

    fn pass_end(&mut self, ahead: &mut Bytes) -> Result<(), Malformed> {
        let end: &[u8] = b"\r\n";
        let there = &ahead[..ahead.len().min(end.len())];
        if *self != Self::DataEnd || (there.len() < end.len() && end.starts_with(there)) {
            return Ok(());
        }
        if there != end {
            return Err(Malformed::Chunk);
        }
        ahead.advance(end.len());
        *self = Self::Size;
        Ok(())
    }
}

/// A line without its end.
fn line(ahead: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
    let window = &ahead[..ahead.len().min(SIZE_LINE_MAX)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let mut line = ahead.split_to(end);
            ahead.advance(1);
            // A bare LF ends nothing: what one server takes for a chunk's end, another must not take for data.
            if !line.ends_with(b"\r") {
                return Err(Malformed::Chunk);
            }
            line.truncate(end - 1);
            Ok(Some(line))
        }
        None if window.len() == SIZE_LINE_MAX => Err(Malformed::Chunk),
        None => Ok(None),
    }
}

/// The number at a chunk's front; extensions behind it say nothing to us.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| hex);
    let bytes = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    bytes.ok_or(Malformed::Chunk)
}

fn trailers(ahead: &mut Bytes) -> Result<Part, Malformed> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let parsed = httparse::parse_headers(ahead, &mut lines)?;
    let httparse::Status::Complete((length, lines)) = parsed else {
        return match ahead.len() {
            HEAD_BYTES_MAX.. => Err(Malformed::HeadTooLong),
            _ => Ok(Part::More),
        };
    };
    let trailers = headers(ahead, lines)?;
    ahead.advance(length);
    Ok(if trailers.is_empty() {
        Part::End
    } else {
        Part::Frame(Frame::trailers(trailers))
    })
}

#[cfg(test)]
mod tests;
