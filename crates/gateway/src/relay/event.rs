use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, response};
use protocol::ApiError;
use protocol::status::openai_body;

use crate::operation::Operation;

/// What OpenAI's chat and completion streams end with. openai-python takes a stream that ends without it for complete.
const DONE: &[u8] = b"[DONE]";

/// `data: [DONE]` and two line ends of two characters: what has to be remembered to see the end of a stream.
const TAIL_BYTES: usize = 16;

/// The end of an event stream so far. Frames pass by unchanged; only their last bytes are looked at.
#[derive(Debug)]
pub(super) struct EventStream {
    tail: [u8; TAIL_BYTES],
    filled: usize,
    /// Whether an end without `[DONE]` is an end too early.
    ends_with_done: bool,
}

impl EventStream {
    /// None if the answer is no event stream, or not one that an event can be added to.
    pub(super) fn of(head: &response::Parts, operation: Operation) -> Option<Self> {
        if !is_event_stream(&head.headers)
            || head.headers.contains_key(CONTENT_ENCODING)
            || head.headers.contains_key(CONTENT_LENGTH)
        {
            return None;
        }
        Some(Self {
            tail: [0; TAIL_BYTES],
            filled: 0,
            ends_with_done: head.status.is_success()
                && matches!(
                    operation,
                    Operation::ChatCompletions | Operation::Completions
                ),
        })
    }

    pub(super) fn note(&mut self, data: &[u8]) {
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

    fn seen(&self) -> &[u8] {
        &self.tail[..self.filled]
    }

    /// Whether the stream may end here.
    pub(super) fn finished(&self) -> bool {
        !self.ends_with_done || self.seen().trim_ascii_end().ends_with(DONE)
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
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&openai_body(error));
        event.extend_from_slice(b"\n\n");
        event.into()
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
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
        let mut stream = EventStream {
            tail: [0; TAIL_BYTES],
            filled: 0,
            ends_with_done: true,
        };
        for frame in frames {
            stream.note(frame.as_bytes());
        }
        stream
    }

    #[test]
    fn the_end_is_seen_however_it_is_cut() {
        for (frames, finished) in [
            (&["data: {}\n\n", "data: [DONE]\n\n"][..], true),
            (&["data: {}\n\ndata: [D", "ONE]", "\r\n", "\r\n"], true),
            (
                &[
                    "d", "a", "t", "a", ":", " ", "[", "D", "O", "N", "E", "]", "\n", "\n",
                ],
                true,
            ),
            (
                &["data: {\"a\":\"long enough to fill the tail\"}\n\n"],
                false,
            ),
            (&["data: [DONE]\n\n", "data: {}\n\n"], false),
            (&[], false),
        ] {
            assert_eq!(stream(frames).finished(), finished, "{frames:?}");
        }
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
