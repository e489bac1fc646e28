use prost_reflect::{EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, Value};

use super::super::lex::TokenKind;
use super::{Fault, Parser};
use crate::file_error::did_you_mean;

impl Parser<'_> {
    /// `colon` says that the one before it has been read; only messages may go without.
    pub(super) fn value(
        &mut self,
        field: &FieldDescriptor,
        colon: bool,
        path: &str,
    ) -> Result<Value, Fault> {
        let kind = field.kind();
        if let Kind::Message(descriptor) = &kind {
            let close = if self.take_mark('{') {
                '}'
            } else if self.take_mark('<') {
                '>'
            } else {
                return self.expected(&format!("`{{` of `{}`", field.name()));
            };
            return self
                .message(descriptor, Some(close), path)
                .map(Value::Message);
        }
        if !colon {
            return self.expected(&format!("`:` after `{}`", field.name()));
        }
        match kind {
            Kind::Bool => self.bool(),
            Kind::String => self.string(),
            Kind::Bytes => self.text().map(|bytes| Value::Bytes(bytes.into())),
            Kind::Enum(descriptor) => self.enumeration(&descriptor),
            Kind::Double => self.float().map(Value::F64),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the nearest 32-bit float is what the field can hold"
            )]
            Kind::Float => self.float().map(|value| Value::F32(value as f32)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => self.integer().map(Value::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => self.integer().map(Value::I64),
            Kind::Uint32 | Kind::Fixed32 => self.integer().map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => self.integer().map(Value::U64),
            Kind::Message(_) => self.expected("a value"),
        }
    }

    fn bool(&mut self) -> Result<Value, Fault> {
        let value = match self.peek() {
            Some(TokenKind::Word("true" | "True" | "t") | TokenKind::Number("1")) => true,
            Some(TokenKind::Word("false" | "False" | "f") | TokenKind::Number("0")) => false,
            _ => return self.expected("`true` or `false`"),
        };
        self.at += 1;
        Ok(Value::Bool(value))
    }

    fn string(&mut self) -> Result<Value, Fault> {
        let place = self.place();
        let bytes = self.text()?;
        String::from_utf8(bytes)
            .map(Value::String)
            .map_err(|_| (place, "this text is not UTF-8".to_owned()))
    }

    /// Literals that follow each other are one text.
    fn text(&mut self) -> Result<Vec<u8>, Fault> {
        let mut whole = match self.peek() {
            Some(TokenKind::Text(bytes)) => bytes.clone(),
            _ => return self.expected("a text in quotes"),
        };
        self.at += 1;
        while let Some(TokenKind::Text(bytes)) = self.peek() {
            whole.extend_from_slice(bytes);
            self.at += 1;
        }
        Ok(whole)
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Result<Value, Fault> {
        match self.peek() {
            Some(TokenKind::Word(name)) => {
                let Some(value) = descriptor.get_value_by_name(name) else {
                    let values: Vec<_> = descriptor.values().collect();
                    let known: Vec<_> = values.iter().map(EnumValueDescriptor::name).collect();
                    let hint = did_you_mean(name, &known);
                    return Err((self.place(), format!("unknown value `{name}`{hint}")));
                };
                self.at += 1;
                Ok(Value::EnumNumber(value.number()))
            }
            _ => self.integer().map(Value::EnumNumber),
        }
    }

    fn integer<T: TryFrom<i128>>(&mut self) -> Result<T, Fault> {
        let place = self.place();
        let negative = self.take_mark('-');
        let Some(TokenKind::Number(number)) = self.peek() else {
            return self.expected("a whole number");
        };
        let magnitude = whole_number(number)
            .ok_or_else(|| (place, format!("`{number}` is not a whole number")))?;
        let value = if negative { -magnitude } else { magnitude };
        let fitted = T::try_from(value)
            .map_err(|_| (place, format!("{value} is out of the range of this field")))?;
        self.at += 1;
        Ok(fitted)
    }

    fn float(&mut self) -> Result<f64, Fault> {
        let place = self.place();
        let negative = self.take_mark('-');
        let value = match self.peek() {
            Some(TokenKind::Number(number)) => decimal(number)
                .ok_or_else(|| (place, format!("`{number}` is not a decimal number")))?,
            Some(TokenKind::Word(word)) if is_word(word, &["inf", "infinity"]) => f64::INFINITY,
            Some(TokenKind::Word(word)) if is_word(word, &["nan"]) => f64::NAN,
            _ => return self.expected("a number"),
        };
        self.at += 1;
        Ok(if negative { -value } else { value })
    }
}

fn is_word(word: &str, known: &[&str]) -> bool {
    known.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Decimal, `0x` hexadecimal or `0` octal. 64 bits and a sign fit in 128 with room, so the range check is the caller's.
fn whole_number(number: &str) -> Option<i128> {
    let hex = number
        .strip_prefix("0x")
        .or_else(|| number.strip_prefix("0X"));
    let (digits, radix) = match (hex, number.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (number, 10),
    };
    u64::from_str_radix(digits, radix).ok().map(i128::from)
}

/// Decimal or scientific, with C's `f` allowed at the end.
fn decimal(number: &str) -> Option<f64> {
    let plain = number.strip_suffix(['f', 'F']).unwrap_or(number);
    let numeric = plain
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    numeric.then(|| plain.parse().ok()).flatten()
}
