use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, TRANSFER_ENCODING};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::coding::{Coding, Unpackable, Unpacker};

/// Chunks of one body, as Triton has it. Each costs more than its bytes.
const CHUNKS_MAX: usize = 65_536;

/// hyper passes a long chunk on in parts as they arrive, so only what is too small to be such a part is counted.
const CHUNK_BYTES_COUNTED: usize = 512;

/// A request's body on its way in, unpacked where the door asks for that. Empty once it is taken.
#[derive(Debug)]
pub(crate) struct Upload<B = Incoming> {
    body: Option<B>,
    /// Few are packed.
    unpacking: Option<Box<Unpacking>>,
    /// Small chunks so far; none if the body does not come in chunks.
    chunks: Option<usize>,
}

#[derive(Debug)]
struct Unpacking {
    unpacker: Unpacker,
    /// Arrived and not unpacked.
    packed: Bytes,
    arrived: usize,
    bytes_max: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError<E> {
    #[error(transparent)]
    Body(E),
    #[error(transparent)]
    Unpackable(Unpackable),
    #[error("it is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("it has more than {CHUNKS_MAX} chunks")]
    Chunks,
}

impl<B> Upload<B> {
    pub(crate) fn new(body: B, headers: &HeaderMap) -> Self {
        Self {
            body: Some(body),
            unpacking: None,
            chunks: headers.contains_key(TRANSFER_ENCODING).then_some(0),
        }
    }

    /// From here on the body comes unpacked, if `Content-Encoding` says that it is packed; the error names a coding that
    /// is not known here. `bytes_max` bounds what arrives; whoever reads bounds what it becomes.
    pub(crate) fn unpack(&mut self, headers: &HeaderMap, bytes_max: usize) -> Result<(), String> {
        let mut codings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned())
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        let Some(name) = codings.next() else {
            return Ok(());
        };
        if let Some(second) = codings.next() {
            return Err(format!("{name}, {second}"));
        }
        let coding = Coding::of_name(&name).ok_or(name)?;
        self.unpacking = Some(Box::new(Unpacking {
            unpacker: Unpacker::new(coding),
            packed: Bytes::new(),
            arrived: 0,
            bytes_max,
        }));
        Ok(())
    }

    /// The body, for whoever outlives this; what is left here is empty.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self {
            body: None,
            unpacking: None,
            chunks: None,
        };
        std::mem::replace(self, empty)
    }
}

impl Unpacking {
    fn push<E>(&mut self, packed: Bytes) -> Result<(), UploadError<E>> {
        self.arrived = self.arrived.saturating_add(packed.len());
        if self.arrived > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(UploadError::TooLarge { bytes_max });
        }
        self.packed = packed;
        Ok(())
    }
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, UploadError<E>>>>;

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// A frame as it arrives.
    fn poll_arriving(&mut self, cx: &mut Context<'_>) -> Polled<B::Error> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(chunks)) = (&polled, &mut self.chunks) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            *chunks += usize::from((1..=CHUNK_BYTES_COUNTED).contains(&bytes));
            if *chunks > CHUNKS_MAX {
                return Poll::Ready(Some(Err(UploadError::Chunks)));
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(UploadError::Body)))
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = UploadError<B::Error>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        // One packed frame can become many parts, and none of them waits for the network: others are to have their turn.
        if self.unpacking.is_some() {
            let turn = std::task::ready!(tokio::task::coop::poll_proceed(cx));
            turn.made_progress();
        }
        loop {
            if let Some(unpacking) = &mut self.unpacking {
                match unpacking.unpacker.next(&mut unpacking.packed) {
                    Ok(Some(part)) => return Poll::Ready(Some(Ok(Frame::data(part)))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Some(Err(UploadError::Unpackable(error)))),
                }
            }
            let arrived = std::task::ready!(self.poll_arriving(cx));
            let Some(unpacking) = &mut self.unpacking else {
                return Poll::Ready(arrived);
            };
            match arrived {
                Some(Ok(frame)) => {
                    // Trailers say nothing that we need.
                    if let Ok(packed) = frame.into_data()
                        && let Err(error) = unpacking.push(packed)
                    {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                None => {
                    let finished = unpacking.unpacker.finish();
                    self.unpacking = None;
                    let error = finished.err().map(UploadError::Unpackable);
                    return Poll::Ready(error.map(Err));
                }
                error => return Poll::Ready(error),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unpacking.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.unpacking) {
            (Some(body), None) => body.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}
