use std::future::poll_fn;
use std::pin::Pin;

use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncReadExt as _;

use super::*;

/// A body that comes in these parts.
struct Coming {
    parts: VecDeque<&'static [u8]>,
    length: Option<u64>,
}

impl Body for Coming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let part = self.parts.pop_front();
        Poll::Ready(part.map(|part| Ok(Frame::data(Bytes::from_static(part)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What reaches a socket that takes seven bytes at a time, and whether that was all.
async fn written(method: Method, body: RequestBody) -> (String, bool) {
    let request = Request::builder().method(method).uri("/v1/x?y=%20");
    let request = request.header("x-Custom", "Kept As Is").body(body);
    let request = request.expect("a request");
    let (mut near, mut far) = tokio::io::duplex(7);
    let mut outbox = Outbox::default();
    outbox.put(&request);
    outbox.follow(request.into_body());
    let mut arrived = Vec::new();
    let sending = async {
        let sent = poll_fn(|cx| outbox.poll_write(cx, &mut near)).await;
        drop(near);
        sent.is_ok()
    };
    let (whole, read) = tokio::join!(sending, far.read_to_end(&mut arrived));
    read.expect("open until then");
    (String::from_utf8(arrived).expect("text"), whole)
}

fn coming(parts: &[&'static [u8]], length: Option<u64>) -> RequestBody {
    let parts = parts.iter().copied().collect();
    RequestBody::streamed(Coming { parts, length })
}

#[tokio::test]
async fn a_request_is_written_as_http_says() {
    let long = "0123456789".repeat(1000);
    let parts = |parts: &[&'static [u8]]| {
        RequestBody::Parts(parts.iter().map(|part| Bytes::from_static(part)).collect())
    };
    let whole = |text: &str| RequestBody::Whole(Bytes::copy_from_slice(text.as_bytes()));
    for (method, body, rest) in [
        (Method::GET, whole(""), "\r\n".to_owned()),
        (
            Method::POST,
            whole(""),
            "content-length: 0\r\n\r\n".to_owned(),
        ),
        (
            Method::POST,
            whole("abc"),
            "content-length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            Method::POST,
            whole(&long),
            format!("content-length: 10000\r\n\r\n{long}"),
        ),
        (
            Method::POST,
            parts(&[b"ab", b"c"]),
            "content-length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            Method::POST,
            coming(&[b"ab", b"", b"0123456789abcdefg"], None),
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n"
                .to_owned(),
        ),
        (
            Method::PUT,
            coming(&[b"ab", b"c"], Some(3)),
            "content-length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            Method::PUT,
            coming(&[b"ab", b"cGET / HTTP/1.1"], Some(3)),
            "content-length: 3\r\n\r\nabc".to_owned(),
        ),
    ] {
        let expected = format!("{method} /v1/x?y=%20 HTTP/1.1\r\nx-custom: Kept As Is\r\n{rest}");
        assert_eq!(written(method, body).await, (expected, true));
    }
}

#[tokio::test]
async fn a_body_that_is_shorter_than_announced_is_not_whole() {
    let (_, whole) = written(Method::POST, coming(&[b"ab"], Some(3))).await;
    assert!(!whole);
}
