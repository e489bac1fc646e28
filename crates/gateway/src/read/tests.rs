use std::convert::Infallible;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};

use super::*;

/// A body in given frames.
struct Frames {
    frames: VecDeque<Bytes>,
    announced: Option<u64>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn plenty() -> Arc<Held> {
    Held::nothing(&Budget::new(usize::MAX))
}

fn reader(content: &[u8], frame_bytes: usize, bytes_max: usize) -> Reader<Frames> {
    let body = Frames {
        frames: content
            .chunks(frame_bytes)
            .map(Bytes::copy_from_slice)
            .collect(),
        announced: None,
    };
    Reader::new(body, bytes_max, plenty()).expect("nothing announced")
}

#[tokio::test]
async fn every_cut_into_frames_reads_the_same() {
    let content: Vec<u8> = (0..100).collect();
    let pool = BufferPool::new(0);
    for frame_bytes in 1..=content.len() {
        let mut body = reader(&content, frame_bytes, 100);
        assert_eq!(body.exactly(10).await.expect("head"), content[..10]);
        assert_eq!(
            body.aligned(33, &pool).await.expect("tensor"),
            content[10..43]
        );
        assert_eq!(body.aligned(0, &pool).await.expect("empty tensor"), b""[..]);
        let mut pieces = body.pieces(7).await.expect("message");
        assert_eq!(pieces.copy_to_bytes(7), content[43..50]);
        assert!(!body.at_end().await.expect("more follows"));
        assert_eq!(body.rest().await.expect("rest"), content[50..]);
        assert!(body.at_end().await.expect("the end"));
    }
}

#[tokio::test]
async fn a_body_that_ends_early_gives_what_there_is() {
    let pool = BufferPool::new(0);
    let mut body = reader(b"0123456789", 3, 100);
    assert_eq!(body.exactly(4).await, Ok(Bytes::from_static(b"0123")));
    assert_eq!(
        body.aligned(1 << 40, &pool).await,
        Ok(Bytes::from_static(b"456789"))
    );
    assert_eq!(body.exactly(1).await, Ok(Bytes::new()));
}

#[tokio::test]
async fn one_frame_is_not_copied() {
    let content = Bytes::from_static(b"{\"model\":\"m\"}");
    let body = Frames {
        frames: VecDeque::from([content.clone()]),
        announced: Some(content.len() as u64),
    };
    let read = Reader::new(body, 100, plenty())
        .expect("small enough")
        .rest()
        .await
        .expect("a body");
    assert_eq!(read.as_ptr(), content.as_ptr());
}

#[tokio::test]
async fn too_much_is_refused_announced_or_not() {
    let announced = Frames {
        frames: VecDeque::new(),
        announced: Some(11),
    };
    let too_large = ReadError::TooLarge { bytes_max: 10 };
    assert_eq!(
        Reader::new(announced, 10, plenty()).err(),
        Some(too_large.clone())
    );
    assert_eq!(reader(&[0; 11], 4, 10).rest().await, Err(too_large));
    assert_eq!(
        reader(&[0; 10], 4, 10).rest().await.map(|body| body.len()),
        Ok(10)
    );
}

#[test]
fn pieces_are_one_buffer() {
    let mut pieces = Pieces::default();
    for part in [&b"ab"[..], b"", b"cde", b"f"] {
        pieces.push(Bytes::copy_from_slice(part));
    }
    assert_eq!(pieces.get_u8(), b'a');
    pieces.advance(2);
    assert_eq!(pieces.remaining(), 3);
    assert_eq!(pieces.copy_to_bytes(3), b"def"[..]);
    assert_eq!(pieces.chunk(), b"");
}

#[tokio::test]
async fn all_bodies_together_are_bounded_until_they_are_forgotten() {
    let budget = Budget::new(100);
    let frames = |bytes: usize| Frames {
        frames: VecDeque::from([Bytes::from(vec![0; bytes])]),
        announced: None,
    };
    let full = ReadError::Full { bytes_max: 100 };
    let first = Held::nothing(&budget);
    let mut body = Reader::new(frames(60), 1000, Arc::clone(&first)).expect("room");
    assert_eq!(body.rest().await.map(|body| body.len()), Ok(60));
    drop(body);
    let mut second = Reader::new(frames(41), 1000, Held::nothing(&budget)).expect("room");
    assert_eq!(second.rest().await, Err(full.clone()));
    drop((first, second));
    let mut third = Reader::new(frames(100), 1000, Held::nothing(&budget)).expect("room");
    assert_eq!(third.rest().await.map(|body| body.len()), Ok(100));
    drop(third);

    // A large one is refused by what it announces, and counted once.
    let budget = Budget::new(100_000);
    let announced = || Frames {
        announced: Some(80_000),
        ..frames(80_000)
    };
    let mut whole = Reader::new(announced(), 1 << 20, Held::nothing(&budget)).expect("room");
    let refused = Reader::new(announced(), 1 << 20, Held::nothing(&budget));
    assert_eq!(refused.err(), Some(ReadError::Full { bytes_max: 100_000 }));
    assert_eq!(whole.rest().await.map(|body| body.len()), Ok(80_000));
    let mut small = Reader::new(frames(20_000), 1 << 20, Held::nothing(&budget)).expect("room");
    assert_eq!(small.rest().await.map(|body| body.len()), Ok(20_000));
}
