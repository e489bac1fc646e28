use prost_reflect::{DynamicMessage, SerializeOptions};

use super::parse::descriptor;
use crate::oip::proto::ModelConfig;

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
