use super::told::Usage;

/// Finds the top-level `usage` of a JSON answer as it passes by, however it is cut, and keeps nothing else of it.
#[derive(Debug, Default)]
pub struct BodyUsage {
    depth: u32,
    inside: Inside,
    /// The string just read is the outermost object's word `usage`, and may be a key.
    named: bool,
    /// The value of `usage` comes next, or is being read.
    wanted: bool,
    /// What was read of the value.
    value: Vec<u8>,
    usage: Option<Usage>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    /// A string of the outermost object, with how much of `usage` it has so far; above its length, it is another word.
    Word(usize),
    Text,
    /// Behind a backslash.
    Escape,
}

const NAME: &[u8] = b"usage";

/// A longer value is none that we know.
const VALUE_BYTES_MAX: usize = 16 << 10;

impl BodyUsage {
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    pub fn pass(&mut self, part: &[u8]) {
        let mut rest = part;
        while let Some((byte, after)) = rest.split_first() {
            if self.wanted && self.depth > 1 {
                self.keep(*byte);
            }
            self.step(*byte);
            rest = after;
            if self.inside == Inside::Text {
                rest = self.skip_text(rest);
            }
        }
    }

    fn step(&mut self, byte: u8) {
        match self.inside {
            Inside::Nothing => self.outside(byte),
            Inside::Escape => self.inside = Inside::Text,
            Inside::Word(_) | Inside::Text if byte == b'\\' => self.inside = Inside::Escape,
            Inside::Text if byte == b'"' => self.inside = Inside::Nothing,
            Inside::Text => {}
            Inside::Word(read) if byte == b'"' => {
                self.named = read == NAME.len();
                self.inside = Inside::Nothing;
            }
            Inside::Word(read) if NAME.get(read) == Some(&byte) => {
                self.inside = Inside::Word(read + 1);
            }
            Inside::Word(_) => self.inside = Inside::Text,
        }
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b'"' if self.depth == 1 => {
                self.named = false;
                self.wanted = false;
                self.inside = Inside::Word(0);
            }
            b'"' => self.inside = Inside::Text,
            b':' if self.depth == 1 => self.wanted = std::mem::take(&mut self.named),
            b'{' | b'[' => {
                self.depth += 1;
                if self.wanted && self.depth == 2 {
                    self.value.clear();
                    self.keep(byte);
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 1 && std::mem::take(&mut self.wanted) {
                    let value = std::str::from_utf8(&self.value).ok();
                    self.usage = value.and_then(Usage::read).or(self.usage);
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.value.len() >= VALUE_BYTES_MAX {
            self.wanted = false;
            self.value = Vec::new();
            return;
        }
        self.value.push(byte);
    }

    /// Passes over a string as far as nothing in it matters.
    fn skip_text<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let plain = |byte: &u8| !matches!(byte, b'"' | b'\\');
        let length = rest
            .iter()
            .position(|byte| !plain(byte))
            .unwrap_or(rest.len());
        let (skipped, rest) = rest.split_at(length);
        if self.wanted && self.depth > 1 {
            for byte in skipped {
                self.keep(*byte);
            }
        }
        rest
    }
}
