use std::fmt::Display;

use bytes::Bytes;

use crate::oip::proto::InferTensorContents;
use crate::tensor::{Elements, encode_bytes_elements};
use crate::{ApiError, DataType, shown};

/// The little-endian bytes of typed contents. Only the list that belongs to the type may hold anything; FP16 and BF16
/// have none and travel as raw bytes only.
pub(super) fn bytes_of(
    contents: InferTensorContents,
    dtype: DataType,
    input: &str,
    model: &str,
) -> Result<Bytes, ApiError> {
    check_only(&contents, dtype, input, model)?;
    let data = match dtype {
        DataType::Bool => contents.bool_contents.into_iter().map(u8::from).collect(),
        DataType::Int8 => {
            narrow::<i8, _, 1>(&contents.int_contents, dtype, input, i8::to_le_bytes)?
        }
        DataType::Int16 => {
            narrow::<i16, _, 2>(&contents.int_contents, dtype, input, i16::to_le_bytes)?
        }
        DataType::Uint8 => {
            narrow::<u8, _, 1>(&contents.uint_contents, dtype, input, u8::to_le_bytes)?
        }
        DataType::Uint16 => {
            narrow::<u16, _, 2>(&contents.uint_contents, dtype, input, u16::to_le_bytes)?
        }
        DataType::Int32 => return Ok(own(contents.int_contents)),
        DataType::Int64 => return Ok(own(contents.int64_contents)),
        DataType::Uint32 => return Ok(own(contents.uint_contents)),
        DataType::Uint64 => return Ok(own(contents.uint64_contents)),
        DataType::Fp32 => return Ok(own(contents.fp32_contents)),
        DataType::Fp64 => return Ok(own(contents.fp64_contents)),
        DataType::Bytes => encode_bytes_elements(contents.bytes_contents).ok_or_else(|| {
            ApiError::invalid(format!(
                "input `{}`: an element is longer than 4 GiB",
                shown::name(input)
            ))
            .with_param(input)
        })?,
        DataType::Fp16 | DataType::Bf16 => Vec::new(),
    };
    Ok(Bytes::from(data))
}

/// The lists that hold something, by the type Triton's message calls them.
fn check_only(
    contents: &InferTensorContents,
    dtype: DataType,
    input: &str,
    model: &str,
) -> Result<(), ApiError> {
    use DataType as T;
    let signed = [T::Int8, T::Int16, T::Int32];
    let unsigned = [T::Uint8, T::Uint16, T::Uint32];
    let lists: [(bool, &[DataType]); 8] = [
        (contents.bool_contents.is_empty(), &[T::Bool]),
        (contents.int_contents.is_empty(), &signed),
        (contents.int64_contents.is_empty(), &[T::Int64]),
        (contents.uint_contents.is_empty(), &unsigned),
        (contents.uint64_contents.is_empty(), &[T::Uint64]),
        (contents.fp32_contents.is_empty(), &[T::Fp32]),
        (contents.fp64_contents.is_empty(), &[T::Fp64]),
        (contents.bytes_contents.is_empty(), &[T::Bytes]),
    ];
    let (shown_input, model) = (shown::name(input), shown::name(model));
    for (empty, types) in lists {
        if !empty && !types.contains(&dtype) {
            let given = types[types.len() - 1];
            return Err(ApiError::invalid(format!(
                "unexpected explicit tensor data for input tensor '{shown_input}' for model '{model}' of type '{given}', expected datatype '{dtype}'"
            ))
            .with_param(input));
        }
    }
    Ok(())
}

/// The wire carries small integers in 32 bits. What does not fit is an error, not a different number.
fn narrow<To, From, const SIZE: usize>(
    elements: &[From],
    dtype: DataType,
    input: &str,
    bytes: fn(To) -> [u8; SIZE],
) -> Result<Vec<u8>, ApiError>
where
    From: Copy + Display,
    To: TryFrom<From>,
{
    let mut data = Vec::with_capacity(elements.len() * SIZE);
    for (index, element) in elements.iter().enumerate() {
        let narrow = To::try_from(*element).map_err(|_| {
            ApiError::invalid(format!(
                "input `{}`: element {index} is {element}, which {dtype} cannot hold",
                shown::name(input)
            ))
            .with_param(input)
        })?;
        data.extend_from_slice(&bytes(narrow));
    }
    Ok(data)
}

/// Keeps the decoded list as it is: aligned for its own type, and not copied. The targets are little-endian.
fn own<T: bytemuck::Pod + Send + 'static>(elements: Vec<T>) -> Bytes {
    Bytes::from_owner(Elements(elements))
}
