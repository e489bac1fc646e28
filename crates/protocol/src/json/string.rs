use std::borrow::Cow;

use super::Fault;

/// A string's content between its quotes, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

/// What to do with half of a surrogate pair, which JSON can write and UTF-8 cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lone {
    Refuse,
    /// U+FFFD in its place, as most decoders do.
    Replace,
}

impl<'a> Text<'a> {
    pub(super) fn new(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// Borrowed unless something is escaped.
    pub(crate) fn unescape(self, lone: Lone) -> Result<Cow<'a, str>, Fault> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.raw));
        }
        let mut plain = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some((before, after)) = rest.split_once('\\') {
            plain.push_str(before);
            let at = self.raw.len() - after.len();
            let (character, next) = escape(after);
            let character = match (character, lone) {
                (Some(character), _) => character,
                (None, Lone::Replace) => char::REPLACEMENT_CHARACTER,
                (None, Lone::Refuse) => return Err(Fault::Surrogate { at }),
            };
            plain.push(character);
            rest = next;
        }
        plain.push_str(rest);
        Ok(Cow::Owned(plain))
    }
}

/// One escape after its backslash: its character (none for a lone surrogate) and what follows.
fn escape(after: &str) -> (Option<char>, &str) {
    let mut characters = after.chars();
    let plain = match characters.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return unicode(characters.as_str()),
        Some(itself) => itself,
        // The string was checked when its end was found.
        None => char::REPLACEMENT_CHARACTER,
    };
    (Some(plain), characters.as_str())
}

fn unicode(digits: &str) -> (Option<char>, &str) {
    let Some((first, rest)) = unit(digits) else {
        return (None, digits);
    };
    if let Some(character) = char::from_u32(first) {
        return (Some(character), rest);
    }
    if first >= 0xDC00 {
        return (None, rest);
    }
    let second = rest.strip_prefix("\\u").and_then(unit);
    match second {
        Some((second @ 0xDC00..=0xDFFF, rest)) => {
            let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            (char::from_u32(code), rest)
        }
        _ => (None, rest),
    }
}

fn unit(digits: &str) -> Option<(u32, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

/// Just behind the string whose opening quote is at `at`; the end of the text where it does not end.
pub(crate) fn string_end(bytes: &[u8], at: usize) -> usize {
    end_of(bytes, at + 1).map_or(bytes.len(), |(end, _)| end + 1)
}

/// Just behind the list or object that opens at `at`, in text that is known to be JSON.
pub(super) fn bracket_end(bytes: &[u8], mut at: usize) -> usize {
    let (open, close) = match bytes.get(at) {
        Some(b'{') => (b'{', b'}'),
        _ => (b'[', b']'),
    };
    let mut depth = 0_usize;
    // What is open in the other kind of bracket is closed before this one is.
    while let Some(found) = memchr::memchr3(open, close, b'"', bytes.get(at..).unwrap_or_default())
    {
        at += found;
        match bytes.get(at) {
            Some(b'"') => {
                at = string_end(bytes, at);
                continue;
            }
            Some(byte) if *byte == open => depth += 1,
            _ => depth = depth.saturating_sub(1),
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// The closing quote's place, and whether an escape came before it. `from` is just behind the opening quote.
pub(super) fn end_of(bytes: &[u8], from: usize) -> Result<(usize, bool), (usize, &'static str)> {
    let mut at = from;
    let mut escaped = false;
    loop {
        at = plain_until(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => {
                escaped = true;
                at += escape_length(bytes.get(at + 1..).unwrap_or_default())
                    .ok_or((at, "an unknown escape in a string"))?;
            }
            Some(_) => return Err((at, "a control character in a string must be escaped")),
            None => return Err((at, "the text ends inside a string")),
        }
    }
}

/// Bytes of an escape, its backslash included.
fn escape_length(after: &[u8]) -> Option<usize> {
    match after {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(2),
        [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => {
            Some(6)
        }
        _ => None,
    }
}

/// The first quote, backslash or control character from `at` on, eight bytes at a time.
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // A byte's high bit comes out set where the byte is zero. Borrows only reach later bytes, so the first one is right.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote | backslash | control) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let plain = |byte: &&u8| !matches!(**byte, b'"' | b'\\' | 0..0x20);
    at + rest.iter().take_while(plain).count()
}
