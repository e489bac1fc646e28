use super::Place;
use crate::json::{Fault, Kind, Reader};
use crate::oip::checks::{RANK_MAX, rank_message};
use crate::oip::rest::DEPTH_MAX;
use crate::tensor::element_count;
use crate::{ApiError, DataType, shown};

/// Dimensions and their product stay below this, because every client holds them in a signed 64-bit number.
const ELEMENTS_MAX: u64 = i64::MAX as u64;

pub(super) fn read(text: Option<&str>, place: &Place) -> Result<Vec<usize>, ApiError> {
    let text = text.ok_or_else(|| place.missing("shape"))?;
    let mut shape = Vec::new();
    Reader::over(text, DEPTH_MAX).array(|reader| {
        if shape.len() == RANK_MAX {
            return Err(Why::Error(place.error("shape", &rank_message())));
        }
        shape.push(dimension(reader)?);
        Ok::<(), Why>(())
    })
    .map_err(|why| match why {
        Why::Error(error) => error,
        Why::Fault(fault) => place.unreadable("shape", fault),
        Why::NotUnsigned { http } => {
            let error = place.error(
                "shape",
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer",
            );
            ApiError { http, ..error }
        }
        Why::TooLarge => too_many(text, place),
    })?;
    let count = element_count(&shape).and_then(|count| u64::try_from(count).ok());
    if count.is_none_or(|count| count > ELEMENTS_MAX) {
        return Err(too_many(text, place));
    }
    Ok(shape)
}

enum Why {
    Error(ApiError),
    Fault(Fault),
    NotUnsigned { http: Option<u16> },
    TooLarge,
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn dimension(reader: &mut Reader<'_>) -> Result<usize, Why> {
    if reader.kind()? != Kind::Number {
        return Err(Why::NotUnsigned { http: None });
    }
    let number = reader.number()?;
    match number.parse::<u64>() {
        Ok(dimension) if dimension <= ELEMENTS_MAX => {
            usize::try_from(dimension).map_err(|_| Why::TooLarge)
        }
        // All digits, so too many of them.
        _ if number.bytes().all(|byte| byte.is_ascii_digit()) => Err(Why::TooLarge),
        // Triton answers 500 here, and its own tests insist on it.
        _ if number.starts_with('-') => Err(Why::NotUnsigned { http: Some(500) }),
        _ => Err(Why::NotUnsigned { http: None }),
    }
}

fn too_many(shape: &str, place: &Place) -> ApiError {
    let message = format!(
        "shape {} causes total element count to exceed maximum size of {ELEMENTS_MAX}",
        shown::shape_text(shape)
    );
    place.error("shape", &message)
}

pub(super) fn bytes_overflow(place: &Place) -> ApiError {
    let name = shown::name(place.name.as_deref().unwrap_or_default());
    place.error("shape", &format!("byte size overflow for input '{name}'"))
}

/// Bytes that type and shape need; none for BYTES.
pub(super) fn byte_count(
    dtype: DataType,
    shape: &[usize],
    place: &Place,
) -> Result<Option<usize>, ApiError> {
    let Some(size) = dtype.size() else {
        return Ok(None);
    };
    element_count(shape)
        .and_then(|count| count.checked_mul(size))
        .filter(|bytes| u64::try_from(*bytes).is_ok_and(|bytes| bytes <= ELEMENTS_MAX))
        .map(Some)
        .ok_or_else(|| bytes_overflow(place))
}

/// What the client promises to send must be what type and shape need, before anything is allocated for it.
pub(super) fn matches(given: usize, needed: Option<usize>, place: &Place) -> Result<(), ApiError> {
    let Some(needed) = needed else {
        return Ok(());
    };
    if given == needed {
        return Ok(());
    }
    let message = format!("`binary_data_size` is {given}, type and shape need {needed} bytes");
    Err(place.error("parameters.binary_data_size", &message))
}
