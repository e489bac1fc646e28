use http_body_util::Full;

use super::*;
use crate::read::{Budget, Held};

const BYTES_MAX: usize = 64;

async fn read(body: &[u8]) -> Result<Option<Vec<u8>>, (ErrorKind, String)> {
    let body = Full::new(Bytes::copy_from_slice(body));
    let mut reader =
        Reader::new(body, 1 << 20, Held::nothing(&Budget::new(1 << 20))).expect("a small body");
    next_message(&mut reader, BYTES_MAX, None)
        .await
        .map(|received| {
            received.map(|mut received| {
                let pieces = &mut received.message;
                pieces.copy_to_bytes(pieces.remaining()).to_vec()
            })
        })
        .map_err(|failure| (failure.error.kind, failure.error.message))
}

#[tokio::test]
async fn envelopes_are_opened_or_refused() {
    assert_eq!(read(b"").await, Ok(None));
    assert_eq!(read(&[0, 0, 0, 0, 0]).await, Ok(Some(Vec::new())));
    assert_eq!(read(&[0, 0, 0, 0, 2, 7, 8]).await, Ok(Some(vec![7, 8])));
    for (body, kind, part) in [
        (&[0, 0, 0][..], ErrorKind::Invalid, "middle"),
        (&[0, 0, 0, 0, 3, 1, 2], ErrorKind::Invalid, "middle"),
        (&[1, 0, 0, 0, 0], ErrorKind::Invalid, "does not say how"),
        (
            &[0, 0xff, 0xff, 0xff, 0xff],
            ErrorKind::Exhausted,
            "4294967295",
        ),
        (&[0, 0, 0, 0, 65], ErrorKind::Exhausted, "65"),
    ] {
        let (found, message) = read(body).await.expect_err("refused");
        assert_eq!(found, kind, "{body:?}");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_unary_call_has_one_message() {
    for (body, expected) in [
        (&[0, 0, 0, 0, 1, 9][..], Ok(1)),
        (&[], Err("no message")),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Err("got more")),
    ] {
        let body = Full::new(Bytes::copy_from_slice(body));
        let mut reader =
            Reader::new(body, 1 << 20, Held::nothing(&Budget::new(1 << 20))).expect("a small body");
        match (only_message(&mut reader, BYTES_MAX, None).await, expected) {
            (Ok(received), Ok(bytes)) => {
                assert_eq!(received.message.remaining(), bytes);
                let came: usize = received.into_parts().iter().map(Bytes::len).sum();
                assert_eq!(came, bytes + ENVELOPE_BYTES);
            }
            (Err(failure), Err(part)) => assert!(failure.error.message.contains(part)),
            (found, expected) => panic!("{found:?} where {expected:?} was expected"),
        }
    }
}

#[test]
fn a_refusal_is_headers_only_and_readable() {
    let error = ApiError::new(ErrorKind::NotFound, "no `é`\n100%");
    let reply = refusal(&error);
    let headers = reply.response.headers();
    assert_eq!(headers[GRPC_STATUS], "5");
    assert_eq!(headers[GRPC_MESSAGE], "no `%C3%A9`%0A100%25");
    assert!(matches!(reply.response.body(), Payload::Empty));
    assert!(reply.trailers.is_none());
    assert_eq!(reply.counted_as, Some(404));
}

#[test]
fn a_long_refusal_fits_into_every_clients_metadata() {
    for (message, bytes) in [
        ("é".repeat(512), 3072),
        ("é".repeat(5000), 3072 + 9),
        (format!("x{}", "é".repeat(5000)), 1 + 511 * 6 + 9),
    ] {
        let reply = refusal(&ApiError::invalid(message));
        let text = reply.response.headers()[GRPC_MESSAGE]
            .to_str()
            .expect("ASCII");
        assert_eq!(text.len(), bytes);
        assert_eq!(text.ends_with("%E2%80%A6"), bytes != 3072, "{text}");
    }
}

#[test]
fn grpc_is_told_by_its_content_type() {
    for (kind, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;x=1", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().expect("a header value"));
        assert_eq!(asked(&headers), expected, "{kind}");
    }
}

#[test]
fn a_text_comes_back_as_it_was_encoded() {
    for text in ["no `é`\n100%", "", "%41 is A", "plain"] {
        assert_eq!(percent_decode(percent_encode(text).as_bytes()), text);
    }
    assert_eq!(percent_decode(b"100%, %4"), "100%, %4");
}
