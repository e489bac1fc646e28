use std::ops::Range;

use bytes::{Bytes, BytesMut};
use protocol::openai::{Change, Chunk, Identity, StreamError, chunk};

use crate::exchange::Said;

/// What OpenAI's chat and completion streams end with. openai-python takes a stream that ends without it for complete.
const DONE: &[u8] = b"[DONE]";

/// An event longer than this is passed on as it comes, and the stream is not looked at any more.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// An answer longer than this is not remembered, so nobody else can go on with it.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// An OpenAI stream, event by event. Events that are fine leave as the bytes they came in, whole ones only: what is cut
/// in the middle can then be replaced by somebody else's.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The beginning of an event.
    pending: BytesMut,
    /// What the client has of the answer, in about so many tokens.
    pub(super) text: String,
    pub(super) pieces: u64,
    /// Why nobody else can go on with it.
    pub(super) opaque: Option<&'static str>,
    /// Whether the client got any part of an answer.
    pub(super) begun: bool,
    /// What the events of the first answer have in common.
    identity: Identity,
    /// Whether the upstream said why the answer ends.
    pub(super) finished: bool,
    pub(super) done: bool,
    /// Whether the upstream told the client what went wrong.
    pub(super) told: bool,
    going_on: GoingOn,
    tokens: Tokens,
    /// What is said of the answer beside its text; whether its names are wanted too.
    pub(super) said: Said,
    keeps_details: bool,
    /// Whether nothing is looked at any more.
    blind: bool,
}

/// Tokens of the answer, for its usage.
#[derive(Debug, Default)]
struct Tokens {
    /// Of others, given to the one who speaks as a part of its prompt.
    before: u64,
    /// The pieces that there were when it began.
    pieces: u64,
    /// What it told of its own.
    told: Option<u64>,
}

/// What the stream is to one that began elsewhere.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum GoingOn {
    /// It is the first.
    #[default]
    First,
    /// It adds to what the client has.
    Continued,
    /// It begins anew: so many bytes of its text the client has already, and they must be the same.
    Repeated { matched: usize },
}

/// What an event becomes on its way to the client.
enum Event {
    Unchanged,
    Gone,
    Changed(Vec<u8>),
    /// It is none, or says that the upstream failed.
    Broken(&'static str),
}

impl Chunks {
    pub(super) fn new(keeps_details: bool) -> Self {
        Self {
            keeps_details,
            ..Self::default()
        }
    }

    /// What the client gets of this, and what is wrong with what follows, if anything is.
    pub(super) fn take(&mut self, data: Bytes) -> (Bytes, Option<&'static str>) {
        if self.blind {
            return (data, None);
        }
        let mut data = if self.pending.is_empty() {
            data
        } else {
            self.pending.extend_from_slice(&data);
            self.pending.split().freeze()
        };
        let first = self.going_on == GoingOn::First;
        let (mut passed, mut changed) = (0, BytesMut::new());
        while let Some(length) = event_end(&data[passed..]) {
            let event = &data[passed..passed + length];
            match self.look(event) {
                Event::Unchanged if first => {}
                Event::Unchanged => changed.extend_from_slice(event),
                Event::Changed(event) => changed.extend_from_slice(&event),
                Event::Gone => {}
                Event::Broken(why) => {
                    data.truncate(passed);
                    return (if first { data } else { changed.freeze() }, Some(why));
                }
            }
            passed += length;
        }
        if data.len() - passed > EVENT_BYTES_MAX {
            self.blind = true;
            self.opaque = Some("it has an event of more than a mebibyte");
            changed.extend_from_slice(&data[passed..]);
        } else {
            let rest = data.split_off(passed);
            self.pending.extend_from_slice(&rest);
        }
        (if first { data } else { changed.freeze() }, None)
    }

    /// At the stream's end: what came without an empty line behind it.
    pub(super) fn rest(&mut self) -> (Bytes, Option<&'static str>) {
        let rest = self.pending.split().freeze();
        if self.blind || rest.is_empty() {
            return (rest, None);
        }
        match self.look(&rest) {
            Event::Unchanged => (rest, None),
            Event::Changed(event) => (event.into(), None),
            Event::Gone => (Bytes::new(), None),
            Event::Broken(why) => (Bytes::new(), Some(why)),
        }
    }

    /// Another upstream's stream follows.
    pub(super) fn go_on(&mut self, going_on: GoingOn) {
        self.tokens = match going_on {
            GoingOn::Continued => Tokens {
                before: self.tokens.so_far(self.pieces),
                pieces: self.pieces,
                told: None,
            },
            // It makes the whole answer anew.
            GoingOn::First | GoingOn::Repeated { .. } => Tokens::default(),
        };
        self.pending.clear();
        self.finished = false;
        self.done = false;
        // To a client that has nothing of an answer any stream is the first.
        self.going_on = match going_on {
            GoingOn::Repeated { .. } if self.text.is_empty() => GoingOn::Continued,
            other => other,
        };
        if !self.begun {
            self.going_on = GoingOn::First;
        }
    }

    /// Whether it repeats the answer so far and has not come to its end.
    pub(super) fn repeating(&self) -> bool {
        matches!(self.going_on, GoingOn::Repeated { .. })
    }

    fn look(&mut self, event: &[u8]) -> Event {
        let Some(place) = self.data(event) else {
            return Event::Unchanged;
        };
        let data = &event[place.clone()];
        if data.starts_with(DONE) {
            if self.repeating() {
                return Event::Broken("answered otherwise than the one before");
            }
            self.done = true;
            return Event::Unchanged;
        }
        let Ok(chunk) = chunk(data) else {
            // Text of the server's own is passed on; half an object is what is left of a chunk.
            if !data.starts_with(b"{") && !self.repeating() {
                return Event::Unchanged;
            }
            return Event::Broken("sent an event that is not JSON");
        };
        match chunk.error {
            Some(StreamError::Request) => {
                self.told = true;
                return Event::Unchanged;
            }
            Some(StreamError::Upstream) => {
                return Event::Broken("failed in the middle of its answer");
            }
            None => {}
        }
        let whole = chunk.text.as_deref().unwrap_or_default();
        let new = match self.new_of(&chunk, whole) {
            New::All => whole,
            New::From(at) => whole.get(at..).unwrap_or_default(),
            New::Nothing => return Event::Gone,
            New::Other => return Event::Broken("answered otherwise than the one before"),
        };
        self.note(&chunk, new);
        if self.going_on == GoingOn::First {
            return Event::Unchanged;
        }
        // The client knows whose turn it is.
        if new.is_empty() && chunk.speaks && !chunk.finished && chunk.opaque.is_none() {
            return Event::Gone;
        }
        let text = (new.len() < whole.len()).then_some(new);
        let before = self.tokens.before;
        let renamed = chunk.renamed(data, &self.identity, Change { text, before });
        let changed = [&event[..place.start], &renamed, &event[place.end..]].concat();
        Event::Changed(changed)
    }

    /// What of a chunk's text the client does not have.
    fn new_of(&mut self, chunk: &Chunk<'_>, whole: &str) -> New {
        let GoingOn::Repeated { matched } = &mut self.going_on else {
            return New::All;
        };
        let left = self.text.get(*matched..).unwrap_or_default();
        if left.len() > whole.len() {
            if !left.starts_with(whole) || chunk.finished || chunk.opaque.is_some() {
                return New::Other;
            }
            *matched += whole.len();
            return New::Nothing;
        }
        if !whole.starts_with(left) {
            return New::Other;
        }
        let at = left.len();
        self.going_on = GoingOn::Continued;
        New::From(at)
    }

    fn note(&mut self, chunk: &Chunk<'_>, new: &str) {
        if chunk.speaks && !self.begun {
            self.begun = true;
            self.identity = chunk.identity();
        }
        self.finished |= chunk.finished;
        self.say(chunk);
        self.opaque = self.opaque.or(chunk.opaque);
        if new.is_empty() || self.opaque.is_some() {
            return;
        }
        self.pieces += 1;
        self.said.pieces = self.pieces;
        self.said.begun = true;
        self.text.push_str(new);
        if self.text.len() > TEXT_BYTES_MAX {
            self.text = String::new();
            self.opaque = Some("it is longer than a mebibyte");
        }
    }

    /// What is told of a request whose answer this is a part of.
    fn say(&mut self, chunk: &Chunk<'_>) {
        if let Some(usage) = chunk.usage {
            self.tokens.told = Some(usage.output);
            let whole = chunk.usage_after(self.tokens.before);
            self.said.usage = Some(whole.unwrap_or(usage));
        }
        self.said.begun |= chunk.opaque.is_some() || chunk.finished;
        if self.keeps_details {
            let details = self.said.details.get_or_insert_default();
            if details.model.is_none() {
                (details.id, details.model) = (chunk.id(), chunk.model());
            }
            if let Some(reason) = chunk.finish_reason() {
                details.finish_reason = Some(reason);
            }
        }
    }

    /// Where an event's data stands in it; none if it has none. Of data in several lines nobody makes sense here.
    fn data(&mut self, event: &[u8]) -> Option<Range<usize>> {
        let (mut found, mut at) = (None, 0);
        for line in event.split_inclusive(|byte| *byte == b'\n') {
            if let Some(data) = line.strip_prefix(b"data:") {
                if found.is_some() {
                    self.opaque = Some("its events are not one line each");
                    return None;
                }
                let before = data.len() - data.trim_ascii_start().len();
                let start = at + b"data:".len() + before;
                found = Some(start..start + data.trim_ascii().len());
            }
            at += line.len();
        }
        found
    }
}

impl Tokens {
    /// Of the answer until now: as told, else a piece is a token, which is what engines send.
    fn so_far(&self, pieces: u64) -> u64 {
        let own = pieces.saturating_sub(self.pieces);
        self.before + self.told.unwrap_or(own)
    }
}

enum New {
    All,
    From(usize),
    Nothing,
    Other,
}

/// The length of the first event, with the empty line that ends it.
fn event_end(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let line_end = from + data.get(from..)?.iter().position(|byte| *byte == b'\n')? + 1;
        match data.get(line_end..)? {
            [b'\n', ..] => return Some(line_end + 1),
            [b'\r', b'\n', ..] => return Some(line_end + 2),
            _ => from = line_end,
        }
    }
}

#[cfg(test)]
mod tests;
