//! An inference's answer as JSON, with binary tensors behind it.

use bytes::Bytes;
use serde::Serialize;

use super::error::Place;
use super::header::ResponseForm;
use crate::tensor::BytesElements;
use crate::{ApiError, DataType, InferResponse, Parameter, Parameters, Tensor};

/// What goes on the wire: `json`, then every one of `binary`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedResponse {
    pub json: Vec<u8>,
    /// The tensors' own bytes.
    pub binary: Vec<Bytes>,
    /// For [`super::HEADER_LENGTH`]; none when the answer is JSON only.
    pub header_length: Option<usize>,
}

/// Where an output's elements go.
#[derive(Clone, Copy)]
enum Where {
    Here,
    Behind,
    /// In shared memory already.
    Shared,
}

/// Writes each output as the client asked.
pub fn encode(response: &InferResponse, form: &ResponseForm) -> Result<EncodedResponse, ApiError> {
    let mut json = Vec::with_capacity(256);
    let mut binary = Vec::new();
    json.extend_from_slice(b"{\"model_name\":");
    write(&mut json, &response.model);
    json.extend_from_slice(b",\"model_version\":");
    write(&mut json, &response.version);
    if let Some(id) = &response.id {
        json.extend_from_slice(b",\"id\":");
        write(&mut json, id);
    }
    if !response.parameters.is_empty() {
        json.extend_from_slice(b",\"parameters\":");
        write_parameters(&mut json, &response.parameters);
    }
    json.extend_from_slice(b",\"outputs\":[");
    for (index, tensor) in response.outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        let place = if form.placement.contains_key(&tensor.name) {
            Where::Shared
        } else if form.wants_binary(&tensor.name) {
            binary.push(tensor.data.clone());
            Where::Behind
        } else {
            Where::Here
        };
        write_tensor(&mut json, tensor, index, place)?;
    }
    json.extend_from_slice(b"]}");
    let header_length = (!binary.is_empty()).then_some(json.len());
    Ok(EncodedResponse {
        json,
        binary,
        header_length,
    })
}

/// Strings and finite numbers only, which cannot fail to be written to memory.
pub(super) fn write<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("scalars always serialise");
}

pub(super) fn write_parameters(json: &mut Vec<u8>, parameters: &Parameters) {
    json.push(b'{');
    for (index, (key, value)) in parameters.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(json, key);
        json.push(b':');
        write_value(json, value);
    }
    json.push(b'}');
}

pub(super) fn write_value(json: &mut Vec<u8>, value: &Parameter) {
    match value {
        Parameter::Bool(value) => write(json, value),
        Parameter::Int(value) => write(json, value),
        Parameter::Uint(value) => write(json, value),
        Parameter::Double(value) => write_float(json, *value),
        Parameter::Text(value) => write(json, value),
    }
}

fn write_tensor(
    json: &mut Vec<u8>,
    tensor: &Tensor,
    index: usize,
    place: Where,
) -> Result<(), ApiError> {
    json.extend_from_slice(b"{\"name\":");
    write(json, &tensor.name);
    json.extend_from_slice(b",\"datatype\":");
    write(json, tensor.dtype.name());
    json.extend_from_slice(b",\"shape\":");
    write(json, &tensor.shape);
    match place {
        Where::Behind => {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            write(json, &tensor.data.len());
            json.push(b'}');
        }
        // Nothing: Triton's C++ client takes any `parameters` for those of a binary tensor, and fails without its size.
        Where::Shared => {}
        Where::Here => {
            json.extend_from_slice(b",\"data\":");
            write_data(json, tensor).map_err(|message| {
                let place = Place {
                    role: "output",
                    index,
                    name: Some(tensor.name.clone()),
                };
                place.error("data", &message)
            })?;
        }
    }
    json.push(b'}');
    Ok(())
}

/// Triton writes `data` flat whatever the shape, and so do we.
pub(super) fn write_data(json: &mut Vec<u8>, tensor: &Tensor) -> Result<(), String> {
    let data = &tensor.data;
    json.push(b'[');
    match tensor.dtype {
        DataType::Bool => list(json, data.iter(), |json, byte| write(json, &(*byte != 0))),
        DataType::Uint8 => list(json, data.iter(), write),
        DataType::Uint16 => words(json, data, |json, word| {
            write(json, &u16::from_le_bytes(word))
        }),
        DataType::Uint32 => words(json, data, |json, word| {
            write(json, &u32::from_le_bytes(word))
        }),
        DataType::Uint64 => words(json, data, |json, word| {
            write(json, &u64::from_le_bytes(word))
        }),
        DataType::Int8 => words(json, data, |json, word| {
            write(json, &i8::from_le_bytes(word))
        }),
        DataType::Int16 => words(json, data, |json, word| {
            write(json, &i16::from_le_bytes(word))
        }),
        DataType::Int32 => words(json, data, |json, word| {
            write(json, &i32::from_le_bytes(word))
        }),
        DataType::Int64 => words(json, data, |json, word| {
            write(json, &i64::from_le_bytes(word))
        }),
        DataType::Fp32 => words(json, data, |json, word| {
            write_float(json, f32::from_le_bytes(word));
        }),
        DataType::Fp64 => words(json, data, |json, word| {
            write_float(json, f64::from_le_bytes(word));
        }),
        DataType::Fp16 | DataType::Bf16 => {
            return Err(format!(
                "sending {} data via JSON is not supported. Please use the binary data format for output {} \
                 (`binary_data`: true)",
                tensor.dtype, tensor.name
            ));
        }
        DataType::Bytes => write_strings(json, data)?,
    }
    json.push(b']');
    Ok(())
}

fn list<T>(
    json: &mut Vec<u8>,
    elements: impl Iterator<Item = T>,
    mut element: impl FnMut(&mut Vec<u8>, T),
) {
    for (index, value) in elements.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        element(json, value);
    }
}

fn words<const N: usize>(
    json: &mut Vec<u8>,
    data: &[u8],
    mut word: impl FnMut(&mut Vec<u8>, [u8; N]),
) {
    let (words, _) = data.as_chunks::<N>();
    list(json, words.iter(), |json, bytes| word(json, *bytes));
}

fn write_strings(json: &mut Vec<u8>, data: &[u8]) -> Result<(), String> {
    for (index, element) in BytesElements::new(data).enumerate() {
        let element = element.map_err(|()| format!("element {index} runs past the end"))?;
        let text = std::str::from_utf8(element).map_err(|_| {
            format!(
                "element {index} is not UTF-8, which JSON cannot carry; ask for `binary_data`: true"
            )
        })?;
        if index > 0 {
            json.push(b',');
        }
        write(json, text);
    }
    Ok(())
}

trait Float: Serialize + Copy + Into<f64> {}
impl Float for f32 {}
impl Float for f64 {}

/// The shortest digits that read back as the same number. What JSON has no words for is written as Triton and Python
/// write it, and as the clients of both read it: `NaN`, `Infinity`, `-Infinity`.
fn write_float(json: &mut Vec<u8>, value: impl Float) {
    let wide: f64 = value.into();
    if wide.is_finite() {
        write(json, &value);
    } else if wide.is_nan() {
        json.extend_from_slice(b"NaN");
    } else {
        json.extend_from_slice(if wide > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        });
    }
}
