use bytes::Bytes;
use http::Method;

use super::{Answer, Body, Malformed, Part, head};

/// What came of a connection's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) trailers: String,
    /// Whether it ended, or may end with the connection.
    pub(super) whole: bool,
    pub(super) keeps: bool,
}

/// Reads an answer that comes in these pieces, and nothing after them. None if there is no head.
pub(super) fn read(pieces: &[&[u8]], method: &Method) -> Result<Option<Read>, Malformed> {
    let mut ahead = Bytes::new();
    let mut answer = None;
    let (mut bytes, mut trailers) = (Vec::new(), String::new());
    for piece in pieces {
        ahead = [&ahead[..], piece].concat().into();
        if answer.is_none() {
            answer = head(&mut ahead, method)?;
        }
        let Some(Answer { body, .. }) = &mut answer else {
            continue;
        };
        while let Part::Frame(frame) = body.next(&mut ahead)? {
            match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = format!("{:?}", frame.into_trailers().unwrap_or_default()),
            }
        }
    }
    Ok(answer.map(|Answer { head, body, keeps }| Read {
        status: head.status().as_u16(),
        body: bytes,
        trailers,
        whole: matches!(body, Body::Ended | Body::Close),
        keeps: keeps && body.ended() && ahead.is_empty(),
    }))
}

/// An upstream's answer: no panic, and the same whatever pieces it comes in. The first byte says where it is cut.
pub fn fuzz_http_answer(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let (front, back) = bytes.split_at(usize::from(*first) % (bytes.len() + 1));
    let whole = read(&[bytes], &Method::POST).ok();
    assert_eq!(read(&[front, back], &Method::POST).ok(), whole);
}
