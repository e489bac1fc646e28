//! Tensors in shared memory: what a request says of them, and how they are checked before anybody touches the memory.

use std::collections::BTreeMap;

use super::checks::Refused;
use crate::{ApiError, DataType, Parameter, Parameters, shown};

/// Where a tensor's bytes are, or are to go: a part of a region that was registered under this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    pub region: String,
    pub offset: u64,
    pub bytes: u64,
}

/// Outputs that go to shared memory, by name.
pub type Placement = BTreeMap<String, Shared>;

pub(super) const REGION: &str = "shared_memory_region";
pub(super) const OFFSET: &str = "shared_memory_offset";
pub(super) const BYTES: &str = "shared_memory_byte_size";

/// Takes the three parameters out of a tensor's; none if it is not in shared memory.
pub(super) fn take(parameters: &mut Parameters) -> Result<Option<Shared>, Refused> {
    let number = |key: &'static str, given: Option<Parameter>| match given {
        None => Ok(None),
        Some(Parameter::Uint(number)) => Ok(Some(number)),
        Some(Parameter::Int(number)) => u64::try_from(number)
            .map(Some)
            .map_err(|_| Refused::new(key, "it must not be negative")),
        Some(_) => Err(Refused::new(
            key,
            "invalid value type, expected a number of bytes",
        )),
    };
    let offset = number(OFFSET, parameters.remove(OFFSET))?;
    let bytes = number(BYTES, parameters.remove(BYTES))?;
    let region = match parameters.remove(REGION) {
        Some(Parameter::Text(region)) => region,
        Some(_) => {
            return Err(Refused::new(
                REGION,
                "invalid value type, expected the name of a region",
            ));
        }
        None if bytes.is_some() || offset.is_some() => {
            let key = if bytes.is_some() { BYTES } else { OFFSET };
            let message = format!("it can not be specified without `{REGION}`");
            return Err(Refused::new(key, &message));
        }
        None => return Ok(None),
    };
    let bytes =
        bytes.ok_or_else(|| Refused::new(BYTES, "it must be specified with a region's name"))?;
    Ok(Some(Shared {
        region,
        offset: offset.unwrap_or_default(),
        bytes,
    }))
}

impl Shared {
    /// As it is said of an output: where it is now, and how long.
    pub(super) fn parameters(&self, written: u64) -> Parameters {
        let mut parameters = Parameters::from([
            (REGION.to_owned(), Parameter::Text(self.region.clone())),
            (BYTES.to_owned(), size(written)),
        ]);
        if self.offset > 0 {
            parameters.insert(OFFSET.to_owned(), size(self.offset));
        }
        parameters
    }
}

fn size(bytes: u64) -> Parameter {
    i64::try_from(bytes).map_or(Parameter::Uint(bytes), Parameter::Int)
}

/// Triton's words for an input whose bytes are not as many as its type and shape need. BYTES may have any number.
pub(super) fn check_size(
    (name, model): (&str, &str),
    dtype: DataType,
    shape: &[usize],
    given: u64,
) -> Result<(), ApiError> {
    let Some(size) = dtype.size() else {
        return Ok(());
    };
    let needed = crate::tensor::element_count(shape)
        .and_then(|count| count.checked_mul(size))
        .and_then(|bytes| u64::try_from(bytes).ok());
    if needed == Some(given) {
        return Ok(());
    }
    let expected = needed.map_or_else(
        || "more than can be addressed".to_owned(),
        |n| n.to_string(),
    );
    Err(ApiError::invalid(format!(
        "input byte size mismatch for input '{}' for model '{}'. Expected {expected}, got {given}",
        shown::name(name),
        shown::name(model)
    ))
    .with_param(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_region_a_size_and_perhaps_an_offset() {
        let text = |text: &str| Parameter::Text(text.to_owned());
        let read = |given: &[(&str, Parameter)]| {
            let mut parameters: Parameters = given
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect();
            take(&mut parameters).map_err(|refused| refused.message)
        };
        let shared = |offset| Shared {
            region: "r".to_owned(),
            offset,
            bytes: 8,
        };
        let (region, bytes) = ((REGION, text("r")), (BYTES, Parameter::Int(8)));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[region.clone(), bytes.clone()]), Ok(Some(shared(0))));
        let offset = (OFFSET, Parameter::Uint(u64::MAX));
        assert_eq!(
            read(&[region.clone(), bytes.clone(), offset.clone()]),
            Ok(Some(shared(u64::MAX)))
        );
        for (given, part) in [
            (vec![region.clone()], "must be specified with"),
            (vec![bytes], "without `shared_memory_region`"),
            (vec![offset], "without `shared_memory_region`"),
            (vec![region.clone(), (BYTES, text("8"))], "number of bytes"),
            (vec![region, (BYTES, Parameter::Int(-1))], "negative"),
            (vec![(REGION, Parameter::Int(1))], "name of a region"),
        ] {
            let message = read(&given).expect_err(part);
            assert!(message.contains(part), "{message}");
        }
    }
}
