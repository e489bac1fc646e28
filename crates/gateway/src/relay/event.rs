use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, response};
use protocol::ApiError;
use protocol::status::{anthropic_body, openai_body};

use crate::operation::Operation;

/// Two line ends of two characters: what has to be remembered to see whether an event has ended.
const TAIL_BYTES: usize = 4;

/// The end of an event stream so far. Frames pass by unchanged; only their last bytes and their events' names are looked
/// at. Streams of OpenAI's chunks are not among them: those are read event by event.
#[derive(Debug)]
pub(super) struct EventStream {
    tail: [u8; TAIL_BYTES],
    filled: usize,
    dialect: Dialect,
    /// The line that begins there, as far as it tells an event's name.
    line: Vec<u8>,
    /// Whether the last event that had a name has one that ends the stream; none before the first.
    last_ends: Option<bool>,
}

/// Whose events they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// OpenAI's responses: the last event says how it ended.
    Responses,
    /// Anthropic's messages, likewise.
    Messages,
    Unknown,
}

/// What a line must begin with to name an event, and how much of it is looked at.
const EVENT: &[u8] = b"event:";
const LINE_BYTES_MAX: usize = 64;

impl EventStream {
    /// None if the answer is no event stream, or not one that an event can be added to.
    pub(super) fn of(head: &response::Parts, operation: Operation) -> Option<Self> {
        if !is_event_stream(&head.headers)
            || head.headers.contains_key(CONTENT_ENCODING)
            || head.headers.contains_key(CONTENT_LENGTH)
        {
            return None;
        }
        let dialect = match operation {
            Operation::Messages => Dialect::Messages,
            _ if !head.status.is_success() => Dialect::Unknown,
            Operation::Responses => Dialect::Responses,
            _ => Dialect::Unknown,
        };
        Some(Self::new(dialect))
    }

    fn new(dialect: Dialect) -> Self {
        Self {
            tail: [0; TAIL_BYTES],
            filled: 0,
            dialect,
            line: Vec::new(),
            last_ends: None,
        }
    }

    pub(super) fn note(&mut self, data: &[u8]) {
        if matches!(self.dialect, Dialect::Responses | Dialect::Messages) {
            self.note_names(data);
        }
        if data.len() >= TAIL_BYTES {
            self.tail.copy_from_slice(&data[data.len() - TAIL_BYTES..]);
            self.filled = TAIL_BYTES;
            return;
        }
        let kept = self.filled.min(TAIL_BYTES - data.len());
        self.tail.copy_within(self.filled - kept..self.filled, 0);
        self.tail[kept..kept + data.len()].copy_from_slice(data);
        self.filled = kept + data.len();
    }

    /// Looks at the beginnings of lines for names of events. A name cannot stand in data: JSON has no bare line ends.
    fn note_names(&mut self, data: &[u8]) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if !part.ends_with(b"\n") {
                return;
            }
            if let Some(name) = self.line.strip_prefix(EVENT) {
                let name = name.trim_ascii();
                self.last_ends = Some(self.dialect.ends_with(name));
            }
            self.line.clear();
        }
    }

    fn seen(&self) -> &[u8] {
        &self.tail[..self.filled]
    }

    /// Whether the stream may end here.
    pub(super) fn finished(&self) -> bool {
        match self.dialect {
            // A server that names no event says nothing of its end.
            Dialect::Responses | Dialect::Messages => self.last_ends.unwrap_or(true),
            Dialect::Unknown => true,
        }
    }

    /// An event that says what went wrong. After it the stream ends without `[DONE]`, so that nobody takes what was
    /// sent for the whole; openai-python raises on the `error` field.
    pub(super) fn error(&self, error: &ApiError) -> Bytes {
        let seen = self.seen();
        // An event that was cut in the middle cannot be taken back. Ending its line keeps this one apart from it.
        let between = seen.is_empty() || seen.ends_with(b"\n\n") || seen.ends_with(b"\r\n\r\n");
        let mut event = Vec::with_capacity(256);
        if !between {
            event.extend_from_slice(b"\n\n");
        }
        if self.dialect == Dialect::Messages {
            event.extend_from_slice(b"event: error\ndata: ");
            event.extend_from_slice(&anthropic_body(error, None));
        } else {
            event.extend_from_slice(b"data: ");
            event.extend_from_slice(&openai_body(error));
        }
        event.extend_from_slice(b"\n\n");
        event.into()
    }
}

impl Dialect {
    fn ends_with(self, name: &[u8]) -> bool {
        match self {
            Self::Messages => matches!(name, b"message_stop" | b"error"),
            Self::Responses => matches!(
                name,
                b"response.completed" | b"response.failed" | b"response.incomplete" | b"error"
            ),
            Self::Unknown => false,
        }
    }
}

/// Whether an answer is a stream of OpenAI's chunks, in which the place of every event is known.
pub(super) fn can_be_rescued(head: &response::Parts, operation: Operation) -> bool {
    let talks = matches!(
        operation,
        Operation::ChatCompletions | Operation::Completions
    );
    talks
        && head.status.is_success()
        && is_event_stream(&head.headers)
        && !head.headers.contains_key(CONTENT_ENCODING)
        && !head.headers.contains_key(CONTENT_LENGTH)
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..NAME.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(NAME))
}

#[cfg(test)]
mod tests {
    use base::ErrorKind;

    use super::*;

    fn stream(frames: &[&str]) -> EventStream {
        spoken(Dialect::Unknown, frames)
    }

    fn spoken(dialect: Dialect, frames: &[&str]) -> EventStream {
        let mut stream = EventStream::new(dialect);
        for frame in frames {
            stream.note(frame.as_bytes());
        }
        stream
    }

    #[test]
    fn a_named_event_ends_streams_that_have_names() {
        let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"   }\n\n";
        for (dialect, text, finished) in [
            (Dialect::Messages, stop.to_owned(), true),
            (Dialect::Messages, stop.replace('\n', "\r\n"), true),
            (
                Dialect::Messages,
                format!("event: message_start\ndata: {{}}\n\n{stop}"),
                true,
            ),
            (
                Dialect::Messages,
                format!("{stop}event: ping\ndata: {{}}\n\n"),
                false,
            ),
            (
                Dialect::Messages,
                "event: content_block_delta\ndata: {}\n\n".to_owned(),
                false,
            ),
            (
                Dialect::Messages,
                "data: {\"text\":\"event: message_stop\"}\n\n".to_owned(),
                true,
            ),
            (
                Dialect::Messages,
                "event: error\ndata: {}\n\n".to_owned(),
                true,
            ),
            (
                Dialect::Responses,
                "event: response.completed\ndata: {}\n\n".to_owned(),
                true,
            ),
            (
                Dialect::Responses,
                "event: response.output_text.delta\n\n".to_owned(),
                false,
            ),
            (Dialect::Responses, "data: {}\n\n".to_owned(), true),
        ] {
            for size in [1, 7, 4096] {
                let frames = text.as_bytes().chunks(size);
                let frames: Vec<&str> = frames.flat_map(std::str::from_utf8).collect();
                assert_eq!(spoken(dialect, &frames).finished(), finished, "{text}");
            }
        }
        let error = ApiError::new(ErrorKind::BadUpstream, "cut");
        let event = spoken(Dialect::Messages, &["event: ping\ndata: {}\n\n"]).error(&error);
        assert!(
            event.starts_with(b"event: error\ndata: {\"type\":\"error\""),
            "{event:?}"
        );
    }

    #[test]
    fn the_error_is_an_event_of_its_own() {
        let error = ApiError::new(ErrorKind::BadUpstream, "cut");
        for (frames, start) in [
            (&["data: {}\n\n"][..], "data: {\"error\":"),
            (&["data: {}\r\n\r\n"], "data: {\"error\":"),
            (&[], "data: {\"error\":"),
            (&["data: {\"half"], "\n\ndata: {\"error\":"),
        ] {
            let event = stream(frames).error(&error);
            assert!(event.starts_with(start.as_bytes()), "{event:?}");
            assert!(event.ends_with(b"\n\n"));
        }
    }
}
