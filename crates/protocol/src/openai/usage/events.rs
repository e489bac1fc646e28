use bytes::{Bytes, BytesMut};

use super::told::{Said, Usage};

/// What becomes of the event that only tells usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// The client asked for it: every byte goes on as it comes.
    Keep,
    /// We asked for it: the client gets the stream that it would have got.
    Drop,
}

/// Reads the usage of an event stream as it passes by, however it is cut.
#[derive(Debug)]
pub struct EventUsage {
    unasked: Unasked,
    /// An event that has begun and not ended. With [`Unasked::Drop`] these bytes have not gone on yet.
    begun: BytesMut,
    usage: Option<Usage>,
    events: u64,
    /// An event had no end: nothing is looked at any more.
    gave_up: bool,
}

/// A longer event is none that we look for. Tool calls and images stay far below it.
const EVENT_BYTES_MAX: usize = 1 << 20;

impl EventUsage {
    pub fn new(unasked: Unasked) -> Self {
        Self {
            unasked,
            begun: BytesMut::new(),
            usage: None,
            events: 0,
            gave_up: false,
        }
    }

    /// What the upstream told.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Events that brought some of the answer: about as many tokens, since engines send one at a time.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What goes on of a part that arrived. Empty while an event is not whole that may have to be dropped.
    pub fn pass(&mut self, part: Bytes) -> Bytes {
        if self.gave_up {
            return part;
        }
        if self.begun.is_empty() {
            return self.pass_from_border(part);
        }
        let before = self.begun.len();
        self.begun.extend_from_slice(&part);
        // The end may be cut too, so that its first bytes are among those before.
        let from = before.saturating_sub(END_BYTES_MAX - 1);
        let Some(end) = event_end(&self.begun, from) else {
            return self.wait(part);
        };
        let event = self.begun.split_to(end).freeze();
        let begun = std::mem::take(&mut self.begun).freeze();
        let keep = self.note(&event);
        if self.unasked == Unasked::Keep {
            self.pass_from_border(begun);
            return part;
        }
        let rest = self.pass_from_border(begun);
        match (keep, rest.is_empty()) {
            (false, _) => rest,
            (true, true) => event,
            (true, false) => joined(&[&event, &rest]),
        }
    }

    /// The stream has ended: what still waited goes on.
    pub fn end(&mut self) -> Bytes {
        let begun = std::mem::take(&mut self.begun).freeze();
        // The last event of a stream that ends without an empty line.
        let keep = begun.is_empty() || self.note(&begun);
        match self.unasked {
            Unasked::Drop if keep => begun,
            Unasked::Keep | Unasked::Drop => Bytes::new(),
        }
    }

    /// `part` begins where an event begins.
    fn pass_from_border(&mut self, mut part: Bytes) -> Bytes {
        let whole = part.clone();
        // What goes on, if it is not the part as it is.
        let mut kept: Option<BytesMut> = None;
        let mut passed = 0;
        while let Some(end) = event_end(&part, 0) {
            let event = part.split_to(end);
            let keep = self.note(&event);
            match (&mut kept, keep || self.unasked == Unasked::Keep) {
                (None, true) => {}
                (None, false) => kept = Some(BytesMut::from(&whole[..passed])),
                (Some(kept), true) => kept.extend_from_slice(&event),
                (Some(_), false) => {}
            }
            passed += end;
        }
        self.begun.extend_from_slice(&part);
        match (self.unasked, kept) {
            (Unasked::Keep, _) => whole,
            (Unasked::Drop, Some(kept)) => kept.freeze(),
            (Unasked::Drop, None) => whole.slice(..passed),
        }
    }

    fn wait(&mut self, part: Bytes) -> Bytes {
        let too_long = self.begun.len() > EVENT_BYTES_MAX;
        self.gave_up |= too_long;
        match self.unasked {
            Unasked::Keep if too_long => {
                self.begun = BytesMut::new();
                part
            }
            Unasked::Keep => part,
            Unasked::Drop if too_long => std::mem::take(&mut self.begun).freeze(),
            Unasked::Drop => Bytes::new(),
        }
    }

    /// Reads one event; whether it goes on.
    fn note(&mut self, event: &[u8]) -> bool {
        let Some(data) = data(event) else { return true };
        let said = Said::read(data);
        self.events += u64::from(said.content);
        if let Some(usage) = said.usage {
            self.usage = Some(self.usage.unwrap_or_default().and(usage));
        }
        !said.usage_only
    }
}

/// The text behind `data:`. An event of several such lines is none that we know.
fn data(event: &[u8]) -> Option<&str> {
    let event = std::str::from_utf8(event).ok()?;
    let mut lines = event.split(['\n', '\r']);
    let data = lines.find_map(|line| line.strip_prefix("data:"))?;
    let data = data.trim();
    data.starts_with('{').then_some(data)
}

/// `\r\n\r\n`
const END_BYTES_MAX: usize = 4;

/// Just behind the first empty line at or after `from`: there the next event begins.
fn event_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes
        .get(at..)?
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))
    {
        let line = at + found;
        let rest = bytes.get(line..)?;
        for end in [&b"\r\n\r\n"[..], b"\n\n", b"\r\r", b"\n\r\n"] {
            if rest.starts_with(end) {
                return Some(line + end.len());
            }
        }
        at = line + 1;
    }
    None
}

fn joined(parts: &[&Bytes]) -> Bytes {
    let mut joined = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        joined.extend_from_slice(part);
    }
    joined.freeze()
}
