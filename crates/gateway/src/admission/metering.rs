use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use policy::Used;
use protocol::openai::usage::{BodyUsage, EventUsage, Unasked, Usage};

/// How it is learnt what a request used.
#[derive(Debug, Default)]
pub(crate) enum Metering {
    /// It is not, or not yet.
    #[default]
    Off,
    Events(Box<EventUsage>),
    Body(Box<BodyUsage>),
    /// The model here said it.
    Told(Used),
}

impl Metering {
    /// For an upstream's answer with this head. A stream that can lose no event keeps its every byte.
    pub(crate) fn of(headers: &HeaderMap, unasked: Unasked) -> Self {
        if headers.contains_key(CONTENT_ENCODING) {
            return Self::Off;
        }
        let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let is = |name: &[u8]| {
            kind.and_then(|kind| kind.get(..name.len()))
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        if is(b"text/event-stream") {
            let unasked = if headers.contains_key(CONTENT_LENGTH) {
                Unasked::Keep
            } else {
                unasked
            };
            Self::Events(Box::new(EventUsage::new(unasked)))
        } else if is(b"application/json") {
            Self::Body(Box::default())
        } else {
            Self::Off
        }
    }

    /// What goes on to the client of a part of the answer.
    pub(crate) fn pass(&mut self, part: Bytes) -> Bytes {
        match self {
            Self::Events(events) => events.pass(part),
            Self::Body(body) => {
                body.pass(&part);
                part
            }
            Self::Off | Self::Told(_) => part,
        }
    }

    /// What still waited when the answer ended.
    pub(crate) fn end(&mut self) -> Bytes {
        match self {
            Self::Events(events) => events.end(),
            Self::Off | Self::Body(_) | Self::Told(_) => Bytes::new(),
        }
    }

    pub(crate) fn told(&self) -> Option<Used> {
        let usage = match self {
            Self::Events(events) => events.usage(),
            Self::Body(body) => body.usage(),
            Self::Told(used) => return Some(*used),
            Self::Off => None,
        };
        let Usage { prompt, output } = usage?;
        Some(Used { prompt, output })
    }

    /// Tokens of the answer that went by, where they can be counted.
    pub(super) fn delivered(&self) -> Option<u64> {
        match self {
            Self::Events(events) => Some(events.events()),
            Self::Off | Self::Body(_) | Self::Told(_) => None,
        }
    }
}
