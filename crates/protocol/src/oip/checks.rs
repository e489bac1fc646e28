//! What both wires refuse alike.

use super::shared::{self, Shared};
use crate::{Parameter, Parameters, shown};

/// More dimensions than any runtime takes (NumPy stops at 64), few enough to be cheap.
pub(super) const RANK_MAX: usize = 64;

/// A small body must not become millions of tensors.
pub(super) const TENSORS_MAX: usize = 16_384;

/// A tensor's parameter that is not what it should be.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) key: String,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(key: &str, why: &str) -> Self {
        let key = shown::name(key).into_owned();
        let message = format!("parameter '{key}': {why}");
        Self { key, message }
    }
}

/// How many classes to answer with instead of the scores.
const CLASSIFICATION: &str = "classification";

/// Where an output goes, taken out of its parameters. What else they say is the runtime's business.
pub(super) fn output_place(parameters: &mut Parameters) -> Result<Option<Shared>, Refused> {
    let place = shared::take(parameters)?;
    let why = match parameters.get(CLASSIFICATION) {
        None | Some(Parameter::Int(0) | Parameter::Uint(0)) => return Ok(place),
        Some(Parameter::Int(1..) | Parameter::Uint(_)) if place.is_none() => return Ok(place),
        Some(Parameter::Int(1..) | Parameter::Uint(_)) => {
            "the results of a classification cannot go to shared memory"
        }
        Some(_) => "invalid value type, expected how many classes to answer with",
    };
    Err(Refused::new(CLASSIFICATION, why))
}

/// The one name below `triton_` that a client may use, on a stream.
pub(super) const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// Triton's words for a request parameter that only the server may set.
pub(super) fn reserved(parameters: &Parameters) -> Option<(&str, &'static str)> {
    const MESSAGE: &str = "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.";
    let key = parameters
        .keys()
        .find(|key| key.starts_with("triton_") && *key != EMPTY_FINAL)?;
    Some((key, MESSAGE))
}

pub(super) fn rank_message() -> String {
    format!("a shape has at most {RANK_MAX} dimensions")
}
