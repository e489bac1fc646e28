use proptest::prelude::*;

use super::fuzz::read;
use super::*;

/// Status, body with `…` where it is cut, trailers, whether the connection may be used again.
fn told(pieces: &[&[u8]], method: &Method) -> Option<(u16, String, String, bool)> {
    let read = read(pieces, method).ok().flatten()?;
    let mut text = String::from_utf8(read.body).ok()?;
    if !read.whole {
        text.push('…');
    }
    Some((read.status, text, read.trailers, read.keeps))
}

const WHOLE: &[(&str, u16, &str, bool)] = &[
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        200,
        "abc",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        200,
        "ab…",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd",
        200,
        "abc",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
        200,
        "abc",
        true,
    ),
    ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200, "", true),
    ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
    (
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        304,
        "",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        200,
        "to the end",
        false,
    ),
    (
        "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
        200,
        "a",
        false,
    ),
    (
        "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\na",
        200,
        "a",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\nconnection: x, close\r\ncontent-length: 1\r\n\r\na",
        200,
        "a",
        false,
    ),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\na",
        201,
        "a",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA ;x=\"1\"\r\n0123456789\r\n0\r\n\r\n",
        200,
        "abc0123456789",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: x, Chunked\r\ncontent-length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n",
        200,
        "a",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
        200,
        "abc",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
        200,
        "ab…",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        200,
        "abc…",
        false,
    ),
];

const MALFORMED: &[&str] = &[
    "HTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\na b: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
    "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
    "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\na",
    "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\na",
    "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+1\r\na\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
];

#[test]
fn answers_end_where_http_says_in_whatever_pieces_they_come() {
    for (bytes, status, text, keeps) in WHOLE {
        let expected = Some((*status, (*text).to_owned(), String::new(), *keeps));
        let all = bytes.as_bytes();
        assert_eq!(told(&[all], &Method::POST), expected, "{bytes}");
        let single: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(
            told(&single, &Method::POST),
            expected,
            "{bytes} by single bytes"
        );
    }
}

#[test]
fn what_is_no_http_is_refused() {
    for bytes in MALFORMED {
        let all = bytes.as_bytes();
        assert!(read(&[all], &Method::POST).is_err(), "{bytes}");
        let single: Vec<&[u8]> = all.chunks(1).collect();
        assert!(
            read(&single, &Method::POST).is_err(),
            "{bytes} by single bytes"
        );
    }
    let endless = [
        b"HTTP/1.1 200 OK\r\nx: ".as_slice(),
        &[b'a'; HEAD_BYTES_MAX],
    ]
    .concat();
    assert!(read(&[&endless], &Method::POST).is_err());
    let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;".as_slice();
    let endless = [start, &[b'a'; SIZE_LINE_MAX]].concat();
    assert!(read(&[&endless], &Method::POST).is_err());
}

#[test]
fn a_head_asked_for_has_no_body_and_trailers_come_last() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n".as_slice();
    let expected = Some((200, String::new(), String::new(), true));
    assert_eq!(told(&[head], &Method::HEAD), expected);
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
    for size in [1, 7, chunked.len()] {
        let pieces: Vec<&[u8]> = chunked.chunks(size).collect();
        let expected = Some((200, "a".to_owned(), "{\"x-sum\": \"7\"}".to_owned(), true));
        assert_eq!(told(&pieces, &Method::POST), expected);
    }
}

#[test]
fn a_reason_of_its_own_is_kept() {
    let mut ahead = Bytes::from_static(b"HTTP/1.1 404 Gone Fishing\r\ncontent-length: 0\r\n\r\n");
    let answer = head(&mut ahead, &Method::GET)
        .expect("HTTP")
        .expect("whole");
    let reason = answer
        .head
        .extensions()
        .get::<ReasonPhrase>()
        .expect("a reason");
    assert_eq!(reason.as_bytes(), b"Gone Fishing");
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_mean_the_same(
        known in prop::sample::select(WHOLE),
        cuts in prop::collection::vec(0_usize..200, 0..6),
        (at, byte) in (0_usize..200, any::<u8>()),
    ) {
        let mut bytes = known.0.as_bytes().to_vec();
        let place = at % bytes.len();
        bytes[place] = byte;
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % bytes.len()).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        let whole = read(&[bytes.as_slice()], &Method::POST).ok();
        prop_assert_eq!(read(&pieces, &Method::POST).ok(), whole);
    }
}

#[test]
fn answers_of_upstreams() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/http_answer");
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is part of the repository") {
        let data = std::fs::read(entry.expect("readable").path()).expect("readable");
        for cut in 0..=data.len() {
            let cut = u8::try_from(cut).unwrap_or(u8::MAX);
            fuzz_http_answer(&[&[cut], data.as_slice()].concat());
        }
        seeds += 1;
    }
    assert!(seeds >= 20, "only {seeds} seeds");
}
