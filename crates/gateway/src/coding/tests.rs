use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::*;

fn pack(coding: Coding, data: &[u8]) -> Bytes {
    let pieces = VecDeque::from([Bytes::new(), Bytes::copy_from_slice(data)]);
    let mut packer = Packer::new(coding, pieces);
    let parts: Vec<Bytes> = std::iter::from_fn(|| packer.next_part()).collect();
    assert!(packer.ended());
    assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
    parts.concat().into()
}

/// Unpacks what comes in frames of `frame` bytes.
fn unpack(coding: Coding, packed: &[u8], frame: usize) -> Result<Vec<u8>, Unpackable> {
    let mut unpacker = Unpacker::new(coding);
    let mut found = Vec::new();
    for frame in packed.chunks(frame) {
        let mut frame = Bytes::copy_from_slice(frame);
        while let Some(part) = unpacker.next(&mut frame)? {
            assert!(part.len() <= PART_BYTES);
            found.extend_from_slice(&part);
        }
        assert!(frame.is_empty());
    }
    unpacker.finish().map(|()| found)
}

#[test]
fn what_is_packed_is_unpacked_whatever_the_frames() {
    let mixed: Vec<u8> = (0..300_000_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    for coding in [Coding::Gzip, Coding::Deflate] {
        for data in [&b""[..], b"x", &[7; 1_000_000], &mixed] {
            let packed = pack(coding, data);
            for frame in [1, 1000, usize::MAX] {
                let found = unpack(coding, &packed, frame);
                assert!(
                    found.as_deref() == Ok(data),
                    "{coding:?}, frames of {frame}"
                );
            }
        }
    }
}

#[test]
fn a_body_that_is_not_what_it_says_is_refused() {
    for coding in [Coding::Gzip, Coding::Deflate] {
        let packed = pack(coding, b"hello, hello, hello");
        let cut = &packed[..packed.len() - 1];
        assert_eq!(unpack(coding, cut, 4), Err(Unpackable::Truncated(coding)));
        assert_eq!(unpack(coding, b"", 4), Err(Unpackable::Truncated(coding)));
        assert_eq!(
            unpack(coding, b"{\"inputs\":[]}", 4),
            Err(Unpackable::Broken(coding))
        );
        let twice = [&packed[..], &packed].concat();
        let found = unpack(coding, &twice, 7);
        match coding {
            Coding::Gzip => assert_eq!(
                found.as_deref(),
                Ok(&b"hello, hello, hellohello, hello, hello"[..])
            ),
            Coding::Deflate => assert_eq!(found, Err(Unpackable::Trailing(coding))),
        }
        let mut wrong = packed.to_vec();
        let last = wrong.len() - 6;
        wrong[last] ^= 0x55;
        assert!(unpack(coding, &wrong, 4).is_err());
    }
}

#[test]
fn members_of_next_to_nothing_are_refused_and_useful_ones_are_not() {
    let coding = Coding::Gzip;
    let many = |data: &[u8]| pack(coding, data).repeat(10_000);
    for frame in [1000, usize::MAX] {
        let found = unpack(coding, &many(b""), frame);
        assert_eq!(found, Err(Unpackable::Scattered(coding)));
        let found = unpack(coding, &many(b"line\n"), frame);
        assert_eq!(found, Err(Unpackable::Scattered(coding)));
        let found = unpack(coding, &many(&[7; 1 << 10]), frame);
        assert_eq!(found.map(|data| data.len()), Ok(10_000 << 10));
        let few = pack(coding, b"line\n").repeat(60);
        let found = unpack(coding, &few, frame);
        assert_eq!(found.map(|data| data.len()), Ok(60 * 5));
    }
}

#[test]
fn the_client_says_which_packing_it_likes() {
    for (value, expected) in [
        ("", None),
        ("gzip", Some(Coding::Gzip)),
        ("deflate", Some(Coding::Deflate)),
        ("gzip, deflate, br", Some(Coding::Gzip)),
        ("deflate, gzip", Some(Coding::Deflate)),
        ("gzip;q=0.2, deflate;q=0.8", Some(Coding::Deflate)),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, GZIP", Some(Coding::Gzip)),
        ("gzip;q=0", None),
        ("gzip;q=nonsense", Some(Coding::Gzip)),
        ("br, zstd, *", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, value.parse().expect("a header value"));
        assert_eq!(Coding::accepted(&headers), expected, "{value}");
    }
}
