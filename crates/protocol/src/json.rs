//! A pull reader over JSON text: strict, borrowing, never recursive.
//!
//! For the two places where a tree would cost too much: tensor data, and bodies that are only relayed. What is skipped
//! is checked as well, so a body that passes is JSON.

mod digits;
mod open;
mod string;
#[cfg(test)]
mod tests;

pub(crate) use digits::eight;
use open::{DEPTH_CAP, Open};
pub(crate) use string::{Lone, Text, string_end};

/// Where and why a text is not the JSON that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("not UTF-8 at byte {at}")]
    Utf8 { at: usize },
    #[error("not valid JSON at byte {at}: {what}")]
    Syntax { at: usize, what: &'static str },
    /// Triton's words.
    #[error("JSON nesting depth exceeds maximum allowed limit ({max})")]
    Depth { max: usize },
    #[error("expected {expected}, found {found}")]
    Type {
        expected: &'static str,
        found: &'static str,
    },
    #[error("a lone surrogate at byte {at} of a string has no UTF-8 form")]
    Surrogate { at: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Null => "null",
        }
    }
}

/// Reads one document from front to back.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    depth_max: usize,
    /// The text is a part of one that has been read to its end.
    checked: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], depth_max: usize) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|error| Fault::Utf8 {
            at: error.valid_up_to(),
        })?;
        Ok(Self::over(text, depth_max))
    }

    pub(crate) fn over(text: &'a str, depth_max: usize) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            depth_max: depth_max.min(DEPTH_CAP),
            checked: false,
        }
    }

    /// As [`Self::over`], for what another reader has skipped: that is JSON, and is not looked at again.
    pub(crate) fn checked(text: &'a str, depth_max: usize) -> Self {
        Self {
            checked: true,
            ..Self::over(text, depth_max)
        }
    }

    /// What comes next, without taking it.
    pub(crate) fn kind(&mut self) -> Result<Kind, Fault> {
        self.space();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'N' | b'I') => Err(self.fault("NaN and Infinity are not JSON")),
            Some(0xEF) if self.at == 0 => Err(self.fault("a byte order mark is not JSON")),
            Some(_) => Err(self.fault("expected a value")),
            None => Err(self.fault("the text ends where a value should be")),
        }
    }

    fn expect(&mut self, kind: Kind) -> Result<(), Fault> {
        let found = self.kind()?;
        if found == kind {
            return Ok(());
        }
        Err(Fault::Type {
            expected: kind.name(),
            found: found.name(),
        })
    }

    /// Calls back once per member, with the reader before the value; the callback must take the value.
    pub(crate) fn object<E: From<Fault>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(Kind::Object)?;
        self.enter()?;
        if self.next_is(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(self, key)?;
            if self.next_is(b'}') {
                self.depth -= 1;
                return Ok(());
            }
            if !self.next_is(b',') {
                return Err(self.fault("expected `,` or `}`").into());
            }
        }
    }

    /// Calls back once per element, with the reader before it; the callback must take it.
    pub(crate) fn array<E: From<Fault>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(Kind::Array)?;
        self.enter()?;
        if self.next_is(b']') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            element(self)?;
            if self.next_is(b']') {
                self.depth -= 1;
                return Ok(());
            }
            if !self.next_is(b',') {
                return Err(self.fault("expected `,` or `]`").into());
            }
        }
    }

    /// The texts of the named members of an object; of a name given twice the last counts, as in Python's parser.
    pub(crate) fn fields<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[Option<&'a str>; N], Fault> {
        let mut found = [None; N];
        self.object(|reader, key| {
            let key = key.unescape(Lone::Replace)?;
            let value = reader.skip()?;
            if let Some(slot) = names.iter().position(|name| *name == key) {
                found[slot] = Some(value);
            }
            Ok::<(), Fault>(())
        })?;
        Ok(found)
    }

    pub(crate) fn text(&mut self) -> Result<Text<'a>, Fault> {
        self.expect(Kind::Text)?;
        self.quoted()
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Fault> {
        self.expect(Kind::Bool)?;
        let value = self.byte() == Some(b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// The number as written.
    pub(crate) fn number(&mut self) -> Result<&'a str, Fault> {
        self.expect(Kind::Number)?;
        let start = self.at;
        self.digits()?;
        Ok(self.since(start))
    }

    /// Passes over any value, checking it, and returns its text.
    pub(crate) fn skip(&mut self) -> Result<&'a str, Fault> {
        self.space();
        let start = self.at;
        if self.checked && matches!(self.byte(), Some(b'[' | b'{')) {
            self.at = string::bracket_end(self.text.as_bytes(), start);
            return Ok(self.since(start));
        }
        let mut open = Open::default();
        loop {
            match self.kind()? {
                Kind::Object => {
                    self.enter()?;
                    if self.next_is(b'}') {
                        self.depth -= 1;
                    } else {
                        open.push(true);
                        self.key()?;
                        continue;
                    }
                }
                Kind::Array => {
                    self.enter()?;
                    if self.next_is(b']') {
                        self.depth -= 1;
                    } else {
                        open.push(false);
                        continue;
                    }
                }
                Kind::Text => drop(self.quoted()?),
                Kind::Number => {
                    self.digits()?;
                    if open.top() == Some(false) {
                        self.more_numbers()?;
                    }
                }
                Kind::Bool if self.byte() == Some(b't') => self.word("true")?,
                Kind::Bool => self.word("false")?,
                Kind::Null => self.word("null")?,
            }
            if self.close(&mut open)? {
                return Ok(self.since(start));
            }
        }
    }

    /// After a value inside [`Self::skip`]: closes what ends here; whether nothing is left open.
    fn close(&mut self, open: &mut Open) -> Result<bool, Fault> {
        while let Some(object) = open.top() {
            if self.next_is(b',') {
                if object {
                    self.key()?;
                }
                return Ok(false);
            }
            if !self.next_is(if object { b'}' } else { b']' }) {
                return Err(self.fault("expected `,` or the end of what is open"));
            }
            self.depth -= 1;
            open.pop();
        }
        Ok(true)
    }

    /// Nothing but space is left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.fault("there is more after the end"))
        }
    }

    fn enter(&mut self) -> Result<(), Fault> {
        if self.depth >= self.depth_max {
            let max = self.depth_max;
            return Err(Fault::Depth { max });
        }
        self.at += 1;
        self.depth += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<Text<'a>, Fault> {
        self.space();
        if self.byte() != Some(b'"') {
            return Err(self.fault("expected a member's name in quotes"));
        }
        let key = self.quoted()?;
        if self.next_is(b':') {
            Ok(key)
        } else {
            Err(self.fault("expected `:`"))
        }
    }

    fn quoted(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at + 1;
        let (end, escaped) = string::end_of(self.text.as_bytes(), start)
            .map_err(|(at, what)| Fault::Syntax { at, what })?;
        self.at = end + 1;
        let raw = self.text.get(start..end).unwrap_or_default();
        Ok(Text::new(raw, escaped))
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.fault("expected `true`, `false` or `null`"));
        }
        self.at += word.len();
        Ok(())
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn digits(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + usize::from(self.byte() == Some(b'-'));
        let leading_zero = bytes.get(at) == Some(&b'0');
        let whole = at;
        at = self.run_of_digits(at)?;
        if leading_zero && at > whole + 1 {
            self.at = whole + 1;
            return Err(self.fault("a number has no leading zero"));
        }
        if bytes.get(at) == Some(&b'.') {
            at = self.run_of_digits(at + 1)?;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            at = self.run_of_digits(at)?;
        }
        self.at = at;
        Ok(())
    }

    /// Where the digits that must begin at `from` end.
    fn run_of_digits(&mut self, from: usize) -> Result<usize, Fault> {
        let bytes = self.text.as_bytes();
        let mut at = from;
        while eight(bytes.get(at..).unwrap_or_default()).is_some() {
            at += 8;
        }
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == from {
            self.at = at;
            return Err(self.fault("expected a digit"));
        }
        Ok(at)
    }

    /// After a number in a list: the numbers that follow. Only a short cut for what tensors are made of.
    fn more_numbers(&mut self) -> Result<(), Fault> {
        loop {
            let skipped = match self.text.as_bytes().get(self.at..).unwrap_or_default() {
                [b',', b'-' | b'0'..=b'9', ..] => 1,
                [b',', b' ', b'-' | b'0'..=b'9', ..] => 2,
                _ => return Ok(()),
            };
            self.at += skipped;
            self.digits()?;
        }
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes the byte if it comes next after any space.
    fn next_is(&mut self, wanted: u8) -> bool {
        self.space();
        let found = self.byte() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault::Syntax { at: self.at, what }
    }
}
