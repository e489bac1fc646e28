use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};

use super::ConfigFile;
use super::lex::{self, Token, TokenKind};
use crate::FileError;
use crate::file_error::did_you_mean;
use crate::oip::proto::DESCRIPTOR;

mod value;

/// The largest file in Triton's own tests is under 10 KB; an ensemble of hundreds of steps stays far below this.
pub(super) const TEXT_BYTES_MAX: usize = 4 << 20;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR)
        .expect("the checked-in descriptor is what the generator wrote")
});

/// Every message, enum and service of the wire.
pub(crate) fn pool() -> &'static DescriptorPool {
    &POOL
}

/// The description of `ModelConfig` that the text is read by.
pub(super) fn descriptor() -> MessageDescriptor {
    POOL.get_message_by_name("inference.ModelConfig")
        .expect("the descriptor holds the configuration")
}

/// Every name that a field of a configuration has, at any depth.
pub(super) fn field_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![descriptor()];
    while let Some(message) = open.pop() {
        if !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        for field in message.fields() {
            names.insert(field.name().to_owned());
            open.extend(field.kind().as_message().cloned());
        }
    }
    names
}

/// Reads the text of a `config.pbtxt`; `file` is only for messages.
pub fn parse(file: &str, text: &str) -> Result<ConfigFile, FileError> {
    let (message, places) =
        read(text).map_err(|fault| FileError::at_offset(file, text, fault.0, fault.1))?;
    let config = message
        .transcode_to()
        .expect("the type is generated from this descriptor");
    Ok(ConfigFile {
        config,
        file: file.to_owned(),
        text: text.to_owned(),
        places,
    })
}

/// A byte offset and what is wrong there.
type Fault = (usize, String);

type Places = BTreeMap<String, usize>;

pub(super) fn read(text: &str) -> Result<(DynamicMessage, Places), Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err((0, format!("the file is larger than {TEXT_BYTES_MAX} bytes")));
    }
    let mut parser = Parser {
        tokens: lex::tokens(text)?,
        at: 0,
        end: text.len(),
        places: Places::new(),
    };
    let message = parser.message(&descriptor(), None, "")?;
    Ok((message, parser.places))
}

/// Depth is bounded by the schema, which does not recurse.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    end: usize,
    places: Places,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&TokenKind<'a>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn peek_mark(&self, mark: char) -> bool {
        self.peek() == Some(&TokenKind::Mark(mark))
    }

    fn take_mark(&mut self, mark: char) -> bool {
        let found = self.peek_mark(mark);
        self.at += usize::from(found);
        found
    }

    /// Where the next token starts.
    fn place(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.end, |token| token.start)
    }

    fn expected<T>(&self, what: &str) -> Result<T, Fault> {
        let found = match self.peek() {
            None => "the end of the file".to_owned(),
            Some(TokenKind::Word(word)) => format!("`{word}`"),
            Some(TokenKind::Number(number)) => format!("`{number}`"),
            Some(TokenKind::Text(_)) => "a text".to_owned(),
            Some(TokenKind::Mark(mark)) => format!("`{mark}`"),
        };
        Err((self.place(), format!("expected {what}, found {found}")))
    }

    /// Fields up to `close`, or to the end of the file when there is none.
    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        close: Option<char>,
        path: &str,
    ) -> Result<DynamicMessage, Fault> {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen = BTreeSet::new();
        loop {
            match (self.peek().cloned(), close) {
                (None, None) => return Ok(message),
                (Some(TokenKind::Mark(mark)), Some(close)) if mark == close => {
                    self.at += 1;
                    return Ok(message);
                }
                (Some(TokenKind::Word(name)), _) => {
                    self.field(name, &mut message, &mut seen, path)?;
                }
                (_, None) => return self.expected("a field name"),
                (_, Some(close)) => return self.expected(&format!("a field name or `{close}`")),
            }
        }
    }

    fn field(
        &mut self,
        name: &str,
        message: &mut DynamicMessage,
        seen: &mut BTreeSet<u32>,
        path: &str,
    ) -> Result<(), Fault> {
        let place = self.place();
        let descriptor = message.descriptor();
        let field = descriptor
            .get_field_by_name(name)
            .ok_or_else(|| (place, unknown_field(&descriptor, name)))?;
        self.at += 1;
        let path = join(path, name);
        let colon = self.take_mark(':');
        if !field.is_list() && !field.is_map() {
            once(&field, seen).map_err(|message| (place, message))?;
            self.places.insert(path.clone(), place);
            let value = self.value(&field, colon, &path)?;
            message.set_field(&field, value);
        } else if self.peek_mark('[') && (colon || is_message(&field)) {
            self.places.entry(path.clone()).or_insert(place);
            self.list(&field, message, &path)?;
        } else {
            self.element(&field, message, (&path, place), colon)?;
        }
        if !self.take_mark(',') {
            self.take_mark(';');
        }
        Ok(())
    }

    fn list(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        path: &str,
    ) -> Result<(), Fault> {
        self.at += 1;
        if self.take_mark(']') {
            return Ok(());
        }
        loop {
            let place = self.place();
            self.element(field, message, (path, place), true)?;
            if self.take_mark(']') {
                return Ok(());
            }
            if !self.take_mark(',') {
                return self.expected("`,` or `]`");
            }
        }
    }

    /// One element of a repeated field, or one entry of a map.
    fn element(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        (path, place): (&str, usize),
        colon: bool,
    ) -> Result<(), Fault> {
        self.places.entry(path.to_owned()).or_insert(place);
        if field.is_map() {
            return self.entry(field, message, (path, place), colon);
        }
        let count = message.get_field(field).as_list().map_or(0, <[Value]>::len);
        let path = format!("{path}[{count}]");
        self.places.insert(path.clone(), place);
        let value = self.value(field, colon, &path)?;
        if let Some(list) = message.get_field_mut(field).as_list_mut() {
            list.push(value);
        }
        Ok(())
    }

    /// An entry is a message of `key` and `value`; its fields' places go under the key once it is known.
    fn entry(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        (path, place): (&str, usize),
        colon: bool,
    ) -> Result<(), Fault> {
        let unnamed = format!("{path}[]");
        let value = self.value(field, colon, &unnamed)?;
        let entry = value.as_message().and_then(|entry| {
            let key = entry.get_field_by_number(1)?.into_owned();
            let value = entry.get_field_by_number(2)?.into_owned();
            Some((key.into_map_key()?, value))
        });
        let map = message.get_field_mut(field).as_map_mut();
        let (Some((key, value)), Some(map)) = (entry, map) else {
            return Err((
                place,
                format!("`{path}` takes entries of `key` and `value`"),
            ));
        };
        let named = match &key {
            MapKey::String(key) => format!("{path}[{key}]"),
            MapKey::U64(key) => format!("{path}[{key}]"),
            other => format!("{path}[{other:?}]"),
        };
        map.insert(key, value);
        // Only this entry's: to touch every later place once for each entry would be quadratic.
        let unnamed_places: Vec<_> = self
            .places
            .range(unnamed.clone()..)
            .take_while(|(inner, _)| inner.starts_with(&unnamed))
            .map(|(inner, _)| inner.clone())
            .collect();
        for inner in unnamed_places {
            let rest = inner.strip_prefix(&unnamed).unwrap_or_default();
            if let Some(offset) = self.places.remove(&inner) {
                self.places.insert(format!("{named}{rest}"), offset);
            }
        }
        self.places.insert(named, place);
        Ok(())
    }
}

fn is_message(field: &FieldDescriptor) -> bool {
    field.kind().as_message().is_some()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A field that is not repeated stands once, and alone of its oneof.
fn once(field: &FieldDescriptor, seen: &mut BTreeSet<u32>) -> Result<(), String> {
    if !seen.insert(field.number()) {
        return Err(format!("`{}` is set twice", field.name()));
    }
    let rival = field.containing_oneof().and_then(|oneof| {
        oneof
            .fields()
            .find(|other| other != field && seen.contains(&other.number()))
    });
    match rival {
        None => Ok(()),
        Some(rival) => Err(format!(
            "`{}` and `{}` exclude each other",
            field.name(),
            rival.name()
        )),
    }
}

fn unknown_field(descriptor: &MessageDescriptor, name: &str) -> String {
    let fields: Vec<_> = descriptor.fields().collect();
    let known: Vec<_> = fields.iter().map(FieldDescriptor::name).collect();
    format!(
        "unknown field `{name}` in {}{}",
        descriptor.name(),
        did_you_mean(name, &known)
    )
}
