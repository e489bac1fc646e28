use bytes::{Buf, Bytes};
use prost::DecodeError;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint};

use super::input::Inputs;
use crate::oip::checks::TENSORS_MAX;
use crate::oip::proto::ModelInferRequest;
use crate::{ApiError, BufferPool};

const INPUTS: u32 = 5;
const OUTPUTS: u32 = 6;
const RAW_INPUT_CONTENTS: u32 = 7;

/// A `ModelInferRequest` from the frames it arrived in. Raw tensor bytes are copied once, from the frames into an
/// aligned buffer of the pool.
pub fn decode_infer(
    mut frames: impl Buf,
    pool: &BufferPool,
) -> Result<ModelInferRequest, ApiError> {
    let mut message = ModelInferRequest::default();
    let mut inputs = Inputs::default();
    while frames.has_remaining() {
        let (tag, wire) = decode_key(&mut frames).map_err(|error| malformed(&error))?;
        if tag == RAW_INPUT_CONTENTS && wire == WireType::LengthDelimited {
            let raw = take_aligned(&mut frames, pool)?;
            message.raw_input_contents.push(raw);
        } else if tag == INPUTS && wire == WireType::LengthDelimited {
            let length = take_length(&mut frames, "inputs")?;
            let input = inputs.decode(frames.copy_to_bytes(length))?;
            message.inputs.push(input);
        } else {
            message
                .merge_field(tag, wire, &mut frames, DecodeContext::default())
                .map_err(|error| malformed(&error))?;
        }
        let tensors = match tag {
            INPUTS => message.inputs.len(),
            OUTPUTS => message.outputs.len(),
            RAW_INPUT_CONTENTS => message.raw_input_contents.len(),
            _ => 0,
        };
        if tensors > TENSORS_MAX {
            return Err(ApiError::invalid(format!(
                "a request has at most {TENSORS_MAX} inputs and as many outputs"
            )));
        }
    }
    Ok(message)
}

pub(super) fn malformed(error: &DecodeError) -> ApiError {
    ApiError::invalid(format!("malformed ModelInferRequest: {error}"))
}

/// A length, checked against what is there before anything is allocated.
fn take_length(frames: &mut impl Buf, field: &str) -> Result<usize, ApiError> {
    let claimed = decode_varint(frames).map_err(|error| malformed(&error))?;
    let left = frames.remaining();
    usize::try_from(claimed)
        .ok()
        .filter(|length| *length <= left)
        .ok_or_else(|| {
            ApiError::invalid(format!("`{field}` claims {claimed} bytes, {left} are left"))
                .with_param(field)
        })
}

/// A length and that many bytes.
fn take_aligned(frames: &mut impl Buf, pool: &BufferPool) -> Result<Bytes, ApiError> {
    let length = take_length(frames, "raw_input_contents")?;
    let mut buffer = pool.take(length);
    let mut missing = length;
    while missing > 0 {
        let chunk = frames.chunk();
        let taken = chunk.len().min(missing);
        buffer.extend_from_slice(&chunk[..taken]);
        frames.advance(taken);
        missing -= taken;
    }
    Ok(buffer.freeze())
}
