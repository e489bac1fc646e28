//! gzip and deflate, in both directions and in parts: what a small body can become is made only as far as it is taken.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// Made at a time: little enough to be no burden on the thread it is made on (about 0.2 ms), enough to be worth a frame.
const PART_BYTES: usize = 64 << 10;

/// Members that a gzip body may have whatever is in them. A member of nothing has 20 bytes and costs about a microsecond,
/// so a body of them would keep a thread for minutes; what tools write one after another has kilobytes in each.
const MEMBERS_MAX: u64 = 64;
const MEMBER_BYTES_MIN: u64 = 1 << 10;

/// zlib's largest window, which every decoder must take.
const WINDOW_BITS: u8 = 15;

/// How a body is packed. HTTP's `deflate` is zlib's format (RFC 9110 §8.4.1.2), and so is gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                Some(Self::Gzip)
            }
            name if name.eq_ignore_ascii_case("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// What `Accept-Encoding` likes best, the first of equals; none if that is no packing at all.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        let mut plain = 0.0;
        let values = headers.get_all(ACCEPT_ENCODING).iter();
        for item in values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
        {
            let (name, weight) = weighted(item);
            match Self::of_name(name) {
                Some(coding) if weight > best.map_or(0.0, |(_, best)| best) => {
                    best = Some((coding, weight));
                }
                None if name.eq_ignore_ascii_case("identity") => plain = weight,
                _ => {}
            }
        }
        best.filter(|(_, weight)| *weight >= plain)
            .map(|(coding, _)| coding)
    }
}

/// `gzip;q=0.5`. A weight that cannot be read is taken as not said.
fn weighted(item: &str) -> (&str, f32) {
    let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
    let weight = parameters
        .trim()
        .strip_prefix("q=")
        .and_then(|text| text.trim().parse().ok())
        .filter(|weight: &f32| (0.0..=1.0).contains(weight));
    (name.trim(), weight.unwrap_or(1.0))
}

/// Why a packed body is not what it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unpackable {
    #[error("it is not {}", .0.name())]
    Broken(Coding),
    #[error("its {} data end too early", .0.name())]
    Truncated(Coding),
    #[error("something follows the end of its {} data", .0.name())]
    Trailing(Coding),
    #[error("its {} data come in too many small members; pack them as one", .0.name())]
    Scattered(Coding),
}

/// Unpacks one body.
pub(crate) struct Unpacker {
    coding: Coding,
    inflate: Decompress,
    state: State,
    /// Begun after the first.
    members: u64,
    made: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between the members of a gzip body, or before the first.
    Fresh,
    Inside,
    Ended,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker")
            .field("coding", &self.coding)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Unpacker {
    pub(crate) fn new(coding: Coding) -> Self {
        Self {
            coding,
            inflate: fresh(coding),
            state: State::Fresh,
            members: 0,
            made: 0,
        }
    }

    /// The next bytes that `packed` gives; none when it must get more, which it has then been emptied for.
    pub(crate) fn next(&mut self, packed: &mut Bytes) -> Result<Option<Bytes>, Unpackable> {
        let mut part = Vec::with_capacity(PART_BYTES);
        loop {
            if self.state == State::Ended && !packed.is_empty() {
                if self.coding == Coding::Deflate {
                    return Err(Unpackable::Trailing(self.coding));
                }
                // gzip allows one member after another (RFC 1952 §2.2).
                self.members += 1;
                if self.members > MEMBERS_MAX + self.made / MEMBER_BYTES_MIN {
                    return Err(Unpackable::Scattered(self.coding));
                }
                self.inflate = fresh(self.coding);
                self.state = State::Inside;
            }
            if self.state == State::Fresh && !packed.is_empty() {
                self.state = State::Inside;
            }
            let (taken, made) = (self.inflate.total_in(), part.len());
            if self.state == State::Inside {
                let step = self
                    .inflate
                    .decompress_vec(packed, &mut part, FlushDecompress::None)
                    .map_err(|_| Unpackable::Broken(self.coding))?;
                if step == Status::StreamEnd {
                    self.state = State::Ended;
                }
            }
            let taken = usize::try_from(self.inflate.total_in() - taken).unwrap_or(usize::MAX);
            packed.advance(taken.min(packed.len()));
            self.made += (part.len() - made) as u64;
            let idle = taken == 0 && part.len() == made;
            if idle && !packed.is_empty() && part.len() < PART_BYTES {
                return Err(Unpackable::Broken(self.coding));
            }
            if part.len() == PART_BYTES || idle {
                return Ok((!part.is_empty()).then(|| Bytes::from(part)));
            }
        }
    }

    /// After the last packed byte.
    pub(crate) fn finish(&self) -> Result<(), Unpackable> {
        match self.state {
            State::Ended => Ok(()),
            State::Fresh | State::Inside => Err(Unpackable::Truncated(self.coding)),
        }
    }
}

fn fresh(coding: Coding) -> Decompress {
    match coding {
        Coding::Gzip => Decompress::new_gzip(WINDOW_BITS),
        Coding::Deflate => Decompress::new(true),
    }
}

/// Packs an answer that is in memory, as far as it is asked for.
pub(crate) struct Packer {
    deflate: Compress,
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("pieces", &self.pieces.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn new(coding: Coding, pieces: VecDeque<Bytes>) -> Self {
        // Tensors hardly shrink; what more effort would save is less than what it costs.
        let level = Compression::fast();
        let deflate = match coding {
            Coding::Gzip => Compress::new_gzip(level, WINDOW_BITS),
            Coding::Deflate => Compress::new(level, true),
        };
        Self {
            deflate,
            pieces,
            ended: false,
        }
    }

    /// The next packed bytes; none after the last. At most [`PART_BYTES`] are taken and made.
    pub(crate) fn next_part(&mut self) -> Option<Bytes> {
        let mut part = Vec::with_capacity(PART_BYTES);
        let mut room = PART_BYTES;
        while !self.ended && part.len() < PART_BYTES && (room > 0 || part.is_empty()) {
            let piece = self.pieces.front_mut();
            let last = piece.is_none();
            let input: &[u8] = piece.as_deref().map_or(&[], |piece| piece);
            let input = &input[..input.len().min(PART_BYTES)];
            let flush = if last {
                FlushCompress::Finish
            } else {
                FlushCompress::None
            };
            let before = self.deflate.total_in();
            let step = self.deflate.compress_vec(input, &mut part, flush);
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            if let Some(piece) = self.pieces.front_mut() {
                piece.advance(taken.min(piece.len()));
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
            }
            room = room.saturating_sub(taken);
            // Deflating fails only when it is used wrongly: then the body ends early, which its checksum shows.
            self.ended = matches!(step, Ok(Status::StreamEnd) | Err(_));
        }
        (!part.is_empty()).then(|| Bytes::from(part))
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests;
