//! A configuration as text that people read and [`super::parse`] reads back.

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};

use super::parse::descriptor;
use crate::oip::proto::ModelConfig;

const INDENT: &str = "  ";

/// The text of a `config.pbtxt` that says all that is set, in the order of the format's own description.
pub fn to_pbtxt(config: &ModelConfig) -> String {
    let mut message = DynamicMessage::new(descriptor());
    message
        .transcode_from(config)
        .expect("the type is generated from this descriptor");
    let mut text = String::new();
    fields(&message, 0, &mut text);
    text
}

fn fields(message: &DynamicMessage, depth: usize, text: &mut String) {
    for field in message.descriptor().fields() {
        if message.has_field(&field) {
            lines(&field, &message.get_field(&field), depth, text);
        }
    }
}

/// One line for a scalar or a list of them; a block for each message and each entry of a map.
fn lines(field: &FieldDescriptor, value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::List(values) if field.kind().as_message().is_some() => {
            for value in values {
                block(field, value, depth, text);
            }
        }
        Value::List(values) => {
            let values: Vec<_> = values.iter().map(|value| scalar(field, value)).collect();
            line(
                depth,
                text,
                &format!("{}: [ {} ]", field.name(), values.join(", ")),
            );
        }
        Value::Map(map) => {
            // Sorted: equal configurations are equal text.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                entry(field, (key, value), depth, text);
            }
        }
        Value::Message(_) => block(field, value, depth, text),
        value => line(
            depth,
            text,
            &format!("{}: {}", field.name(), scalar(field, value)),
        ),
    }
}

fn block(field: &FieldDescriptor, value: &Value, depth: usize, text: &mut String) {
    line(depth, text, &format!("{} {{", field.name()));
    if let Value::Message(message) = value {
        fields(message, depth + 1, text);
    }
    line(depth, text, "}");
}

fn entry(
    field: &FieldDescriptor,
    (key, value): (&MapKey, &Value),
    depth: usize,
    text: &mut String,
) {
    let kind = field.kind();
    let Some(descriptor) = kind.as_message() else {
        return;
    };
    let (key_field, value_field) = (
        descriptor.map_entry_key_field(),
        descriptor.map_entry_value_field(),
    );
    line(depth, text, &format!("{} {{", field.name()));
    lines(&key_field, &Value::from(key.clone()), depth + 1, text);
    lines(&value_field, value, depth + 1, text);
    line(depth, text, "}");
}

fn line(depth: usize, text: &mut String, content: &str) {
    text.push_str(&INDENT.repeat(depth));
    text.push_str(content);
    text.push('\n');
}

fn scalar(field: &FieldDescriptor, value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        // Debug: the shortest digits that read back as the same number, `inf` and `NaN`.
        Value::F32(value) => format!("{value:?}"),
        Value::F64(value) => format!("{value:?}"),
        Value::String(value) => quoted(value.as_bytes()),
        Value::Bytes(value) => quoted(value),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(descriptor) => enumeration(&descriptor, *number),
            _ => number.to_string(),
        },
        Value::Message(_) | Value::List(_) | Value::Map(_) => String::new(),
    }
}

fn enumeration(descriptor: &EnumDescriptor, number: i32) -> String {
    descriptor
        .get_value(number)
        .map_or_else(|| number.to_string(), |value| value.name().to_owned())
}

/// Printable characters as they are; the rest as three octal digits, which no following digit can change.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                control if control.is_ascii_control() => {
                    text.push_str(&format!("\\{:03o}", u32::from(control)));
                }
                plain => text.push(plain),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\{byte:03o}"));
        }
    }
    text.push('"');
    text
}
