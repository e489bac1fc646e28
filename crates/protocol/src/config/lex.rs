//! Protobuf text format in tokens. <https://protobuf.dev/reference/protobuf/textformat-spec/>

/// A token and the byte it starts at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind<'a>,
    pub(super) start: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind<'a> {
    Word(&'a str),
    /// As written, without sign; what it means depends on the field.
    Number(&'a str),
    /// One quoted literal, escapes resolved.
    Text(Vec<u8>),
    Mark(char),
}

/// A byte offset and what is wrong there.
pub(super) type LexError = (usize, String);

const MARKS: &str = "{}<>[]:,;-/.";

pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, LexError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, LexError> {
        self.skip_blank();
        let start = self.at;
        let Some(first) = self.rest().chars().next() else {
            return Ok(None);
        };
        let kind = match first {
            '"' | '\'' => self.quoted(first)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                TokenKind::Word(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_'))
            }
            '0'..='9' => self.number()?,
            '.' if self
                .rest()
                .chars()
                .nth(1)
                .is_some_and(|c| c.is_ascii_digit()) =>
            {
                self.number()?
            }
            mark if MARKS.contains(mark) => {
                self.at += mark.len_utf8();
                TokenKind::Mark(mark)
            }
            other => return Err((start, format!("unexpected character `{other}`"))),
        };
        Ok(Some(Token { kind, start }))
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(|c| c.is_ascii_whitespace() || c == '\u{b}');
            if !self.rest().starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn take_while(&mut self, matches: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !matches(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// Digits, a point, an exponent with its sign; what makes no number is refused where the value is read.
    fn number(&mut self) -> Result<TokenKind<'a>, LexError> {
        let start = self.at;
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        loop {
            self.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
            let taken = self.text.get(start..self.at).unwrap_or_default();
            let exponent = !hex && taken.ends_with(['e', 'E']);
            if !(exponent && self.rest().starts_with(['+', '-'])) {
                return if taken.contains('_') {
                    Err((start, format!("`{taken}` is not a number")))
                } else {
                    Ok(TokenKind::Number(taken))
                };
            }
            self.at += 1;
        }
    }

    fn quoted(&mut self, quote: char) -> Result<TokenKind<'a>, LexError> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let plain = self.take_while(|c| c != quote && c != '\\' && c != '\n');
            bytes.extend_from_slice(plain.as_bytes());
            match self.rest().chars().next() {
                Some('\\') => self.escape(&mut bytes)?,
                Some(found) if found == quote => {
                    self.at += 1;
                    return Ok(TokenKind::Text(bytes));
                }
                _ => {
                    return Err((
                        start,
                        format!("this text has no closing {quote} on its line"),
                    ));
                }
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), LexError> {
        let start = self.at;
        let broken = |at: usize| (at, "unknown escape in a text".to_owned());
        self.at += 1;
        let letter = self.rest().chars().next().ok_or_else(|| broken(start))?;
        if letter.is_digit(8) {
            let value = self.digits(8, 3);
            bytes.push(u8::try_from(value).map_err(|_| broken(start))?);
            return Ok(());
        }
        self.at += letter.len_utf8();
        let plain = match letter {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' | '\'' | '"' | '?' => letter as u8,
            'x' | 'X' | 'u' | 'U' => {
                return self.coded(letter, bytes).ok_or_else(|| broken(start));
            }
            _ => return Err(broken(start)),
        };
        bytes.push(plain);
        Ok(())
    }

    /// A byte in hexadecimal (`x`, up to two digits), or a character (`u` with four, `U` with eight).
    fn coded(&mut self, letter: char, bytes: &mut Vec<u8>) -> Option<()> {
        let before = self.at;
        let digits = match letter {
            'u' => 4,
            'U' => 8,
            _ => 2,
        };
        let value = self.digits(16, digits);
        let taken = self.at - before;
        if digits == 2 {
            bytes.push(u8::try_from(value).ok().filter(|_| taken > 0)?);
        } else {
            let character = char::from_u32(value).filter(|_| taken == digits)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Some(())
    }

    /// At most eight digits, so the value fits.
    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        let mut value = 0_u32;
        for _ in 0..most {
            let digit = self.rest().chars().next().and_then(|c| c.to_digit(radix));
            let Some(digit) = digit else { break };
            value = value.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        value
    }
}
