mod streamed;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::admission::Metering;
use crate::coding::{Coding, Packer};
use crate::exchange::Exchange;
use crate::relay::{Cut, Relayed, Talk};

pub(crate) use streamed::{Part, Streamed};

/// Handed to hyper at a time: enough to fill its write buffer, small enough that the time a slow client takes shows in
/// the ledger and that a gone client is noticed. Slices, not copies.
const PART_BYTES: usize = 128 << 10;

/// An answer below this is packed before its head is sent: 0.2 ms at most.
const PACKED_AT_ONCE: usize = 64 << 10;

/// What an answer consists of.
#[derive(Debug, Default)]
pub(crate) enum Payload {
    #[default]
    Empty,
    Full(Bytes),
    Pieces(VecDeque<Bytes>),
    /// Packed as it is sent.
    Packed(Box<Packer>),
    /// Made as it is sent.
    Streamed(Box<Streamed>),
    /// An upstream's answer, as it comes.
    Relayed(Box<Relayed>),
    /// A conversation's stream, which another upstream may go on with.
    Talk(Box<Talk>),
}

impl Payload {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(bytes)
        }
    }

    /// What is in memory, packed: at once if it is small, so that its length is known.
    pub(crate) fn packed(self, coding: Coding) -> Self {
        let pieces = match self {
            Self::Full(bytes) => VecDeque::from([bytes]),
            Self::Pieces(pieces) => pieces,
            other => return other,
        };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        let mut packer = Packer::new(coding, pieces);
        if bytes > PACKED_AT_ONCE {
            return Self::Packed(Box::new(packer));
        }
        Self::Pieces(std::iter::from_fn(|| packer.next_part()).collect())
    }

    /// The next part of what is in memory; becomes [`Payload::Empty`] with the last.
    fn next_part(&mut self) -> Option<Bytes> {
        match self {
            Self::Empty | Self::Streamed(_) | Self::Relayed(_) | Self::Talk(_) => None,
            Self::Packed(packer) => {
                let part = packer.next_part();
                if packer.ended() {
                    *self = Self::Empty;
                }
                part
            }
            Self::Full(bytes) => {
                let part = bytes.split_to(bytes.len().min(PART_BYTES));
                if bytes.is_empty() {
                    *self = Self::Empty;
                }
                Some(part)
            }
            Self::Pieces(pieces) => {
                let first = pieces.front_mut()?;
                let part = first.split_to(first.len().min(PART_BYTES));
                if first.is_empty() {
                    pieces.pop_front();
                }
                if pieces.is_empty() {
                    *self = Self::Empty;
                }
                Some(part)
            }
        }
    }
}

/// The body of every answer. It owns the exchange, so a dropped client settles like a finished one.
#[derive(Debug)]
pub(crate) struct Body {
    payload: Payload,
    trailers: Option<HeaderMap>,
    exchange: Box<Exchange>,
}

impl Body {
    pub(crate) fn new(
        payload: Payload,
        trailers: Option<HeaderMap>,
        exchange: Box<Exchange>,
    ) -> Self {
        let mut body = Self {
            payload,
            trailers,
            exchange,
        };
        body.exchange.complete = body.ended();
        body
    }

    fn ended(&self) -> bool {
        self.trailers.is_none()
            && match &self.payload {
                Payload::Empty => true,
                Payload::Pieces(pieces) => pieces.is_empty(),
                Payload::Full(_)
                | Payload::Packed(_)
                | Payload::Streamed(_)
                | Payload::Relayed(_)
                | Payload::Talk(_) => false,
            }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

/// The next part of an upstream's answer, without what only we asked for.
///
/// `poll` gives it as it comes, and says whether that was the end.
fn poll_metered(
    exchange: &mut Exchange,
    mut poll: impl FnMut(&mut Exchange) -> (Polled, bool),
) -> Polled {
    loop {
        let (polled, mut ended) = poll(exchange);
        if let Metering::Off = exchange.metering {
            return polled;
        }
        let Poll::Ready(part) = polled else {
            return Poll::Pending;
        };
        let mut part = match part {
            None => {
                ended = true;
                Bytes::new()
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => exchange.metering.pass(data),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            },
            Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
        };
        if ended {
            let rest = exchange.metering.end();
            part = match (part.is_empty(), rest.is_empty()) {
                (true, _) => rest,
                (false, true) => part,
                (false, false) => [part, rest].concat().into(),
            };
        }
        if !part.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        // Held back for now, and nobody would ask again.
        if ended {
            return Poll::Ready(None);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        if let Payload::Relayed(relayed) = &mut this.payload {
            let polled = poll_metered(&mut this.exchange, |exchange| {
                let polled = relayed.poll_frame(cx, exchange);
                (polled, relayed.ended())
            });
            this.exchange.note_gap(&polled);
            this.exchange.passes(&polled);
            if relayed.ended() {
                this.payload = Payload::Empty;
            }
            return polled;
        }
        if let Payload::Talk(talk) = &mut this.payload {
            let polled = poll_metered(&mut this.exchange, |exchange| {
                let polled = talk.poll_frame(cx, exchange);
                (polled, talk.ended())
            });
            this.exchange.note_gap(&polled);
            this.exchange.passes(&polled);
            if talk.ended() {
                this.payload = Payload::Empty;
            }
            return polled;
        }
        if let Payload::Streamed(streamed) = &mut this.payload {
            let polled = streamed.poll_frame(cx, &mut this.exchange);
            if streamed.ended() {
                this.payload = Payload::Empty;
            }
            return polled;
        }
        let frame = this
            .payload
            .next_part()
            .map(Frame::data)
            .or_else(|| this.trailers.take().map(Frame::trailers));
        // hyper asks no further once it knows that nothing follows.
        this.exchange.complete = this.ended();
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Empty => SizeHint::with_exact(0),
            Payload::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Pieces(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Payload::Packed(_) | Payload::Streamed(_) | Payload::Talk(_) => SizeHint::default(),
            Payload::Relayed(relayed) => relayed.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_out_whole_and_in_bounded_parts() {
        let long: Vec<u8> = (0..PART_BYTES * 2 + 7)
            .map(|i| u8::try_from(i % 251).expect("below 251"))
            .collect();
        let pieces = VecDeque::from([
            Bytes::from_static(b"head"),
            Bytes::new(),
            Bytes::from(long.clone()),
        ]);
        let whole = [b"head".as_slice(), &long].concat();
        for (mut payload, expected) in [
            (Payload::full(long.clone()), &long),
            (Payload::Pieces(pieces), &whole),
            (Payload::full(Vec::new()), &Vec::new()),
        ] {
            let mut found = Vec::new();
            while let Some(part) = payload.next_part() {
                assert!(part.len() <= PART_BYTES);
                found.extend_from_slice(&part);
            }
            assert!(matches!(payload, Payload::Empty));
            assert!(found == *expected);
        }
    }
}
