use std::collections::BTreeMap;

use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions};

use super::ConfigFile;
use super::parse::{TEXT_BYTES_MAX, descriptor, field_names};
use crate::FileError;
use crate::oip::proto::ModelConfig;

/// What the JSON of a configuration is called in messages: the parameter of the load call that carries it.
const NAME: &str = "config";

/// The body of `GET /v2/models/M/config`: the wire's field names, enums by name, 64-bit integers as numbers, and fields
/// that say nothing as their default, because clients read without asking whether they are there.
pub fn to_json(config: &ModelConfig) -> String {
    let mut message = DynamicMessage::new(descriptor());
    message
        .transcode_from(config)
        .expect("the type is generated from this descriptor");
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    // By way of a value, whose maps are sorted: equal configurations are equal text.
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("every field has a JSON form")
        .to_string()
}

/// Reads what [`to_json`] writes, and the other spellings of the same (camel case, 64-bit integers in quotes). Strict:
/// an unknown field is an error, as is anything after the object.
pub fn from_json(text: &str) -> Result<ConfigFile, FileError> {
    let at = |line, column, message| FileError {
        file: NAME.to_owned(),
        line,
        column,
        message,
    };
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the configuration is larger than {TEXT_BYTES_MAX} bytes");
        return Err(at(0, 0, message));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let read = DynamicMessage::deserialize_with_options(descriptor(), &mut json, &options)
        .and_then(|message| json.end().map(|()| message));
    let message = read.map_err(|error| {
        let whole = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = whole.strip_suffix(&place).unwrap_or(&whole);
        at(error.line(), error.column(), hinted(message))
    })?;
    let config = message
        .transcode_to()
        .expect("the type is generated from this descriptor");
    Ok(ConfigFile {
        config,
        file: NAME.to_owned(),
        text: String::new(),
        places: BTreeMap::new(),
    })
}

/// An unknown field's name gets the nearest known one beside it.
fn hinted(message: &str) -> String {
    let word = message
        .strip_prefix("unrecognized field name '")
        .and_then(|rest| rest.strip_suffix('\''));
    let known = field_names();
    match word.and_then(|word| base::nearest(word, known.iter().map(String::as_str))) {
        Some(near) => format!("{message}; did you mean `{near}`?"),
        None => message.to_owned(),
    }
}
