//! One input of a `ModelInferRequest`, measured before it is decoded.

use bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message as _};

use super::decode::malformed;
use crate::ApiError;
use crate::oip::checks::{RANK_MAX, rank_message};
use crate::oip::proto::model_infer_request::InferInputTensor;

const SHAPE: u32 = 3;
const CONTENTS: u32 = 5;
const BYTES_CONTENTS: u32 = 8;

/// Two bytes on the wire make 32 in memory; 32 MiB is enough for what has a better form, `raw_input_contents`.
const BYTES_ELEMENTS_MAX: usize = 1 << 20;

/// Decodes inputs, and counts over all of one request what a small body could have too much of.
#[derive(Default)]
pub(super) struct Inputs {
    bytes_elements: usize,
}

impl Inputs {
    pub(super) fn decode(&mut self, encoded: Bytes) -> Result<InferInputTensor, ApiError> {
        let size = Size::of(&encoded).map_err(|error| malformed(&error))?;
        if size.rank > RANK_MAX {
            return Err(ApiError::invalid(rank_message()).with_param("shape"));
        }
        self.bytes_elements += size.bytes_elements;
        if self.bytes_elements > BYTES_ELEMENTS_MAX {
            return Err(ApiError::invalid(format!(
                "a request has at most {BYTES_ELEMENTS_MAX} elements in `bytes_contents`; send more in `raw_input_contents`"
            ))
            .with_param("bytes_contents"));
        }
        InferInputTensor::decode(encoded).map_err(|error| malformed(&error))
    }
}

#[derive(Debug, Default, PartialEq)]
struct Size {
    rank: usize,
    bytes_elements: usize,
}

impl Size {
    fn of(encoded: &[u8]) -> Result<Self, DecodeError> {
        let mut size = Self::default();
        fields(encoded, |tag, value| match (tag, value) {
            // Packed: each dimension's last byte is the one without the continuation bit.
            (SHAPE, Some(packed)) => {
                size.rank += packed.iter().filter(|byte| **byte < 0x80).count();
                Ok(())
            }
            (SHAPE, None) => {
                size.rank += 1;
                Ok(())
            }
            (CONTENTS, Some(contents)) => fields(contents, |tag, _| {
                size.bytes_elements += usize::from(tag == BYTES_CONTENTS);
                Ok(())
            }),
            _ => Ok(()),
        })?;
        Ok(size)
    }
}

/// Calls back with each field's number and, where it has a length, its bytes.
fn fields<'a>(
    mut encoded: &'a [u8],
    mut field: impl FnMut(u32, Option<&'a [u8]>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while encoded.has_remaining() {
        let (tag, wire) = decode_key(&mut encoded)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, tag, &mut encoded, DecodeContext::default())?;
            field(tag, None)?;
            continue;
        }
        let mut value = encoded;
        let length = decode_varint(&mut value)?;
        // Checks the length against what is there.
        skip_field(wire, tag, &mut encoded, DecodeContext::default())?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        field(tag, Some(value.get(..length).unwrap_or_default()))?;
    }
    Ok(())
}
