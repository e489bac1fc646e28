//! What both wires refuse alike.

use crate::{Parameters, shown};

/// More dimensions than any runtime takes (NumPy stops at 64), few enough to be cheap.
pub(super) const RANK_MAX: usize = 64;

/// A small body must not become millions of tensors.
pub(super) const TENSORS_MAX: usize = 16_384;

/// A parameter that would change the answer and that nothing here heeds.
#[derive(Debug)]
pub(super) struct Unsupported {
    pub(super) key: String,
    pub(super) message: String,
}

impl Unsupported {
    fn new(key: &str, instead: &str) -> Self {
        let key = shown::name(key).into_owned();
        let message = format!("parameter `{key}` is not supported; {instead}");
        Self { key, message }
    }
}

/// Shared memory: of inputs and of outputs.
pub(super) fn check_tensor_parameters(parameters: &Parameters) -> Result<(), Unsupported> {
    match parameters
        .keys()
        .find(|key| key.starts_with("shared_memory_"))
    {
        Some(key) => Err(Unsupported::new(key, "send the data in the request")),
        None => Ok(()),
    }
}

/// `classification` is the wire's word, `class_count` that of its clients' libraries.
pub(super) fn check_output_parameters(parameters: &Parameters) -> Result<(), Unsupported> {
    check_tensor_parameters(parameters)
        .map_err(|refused| Unsupported::new(&refused.key, "the data comes with the answer"))?;
    for key in ["classification", "class_count"] {
        if parameters.contains_key(key) {
            return Err(Unsupported::new(key, "ask for the scores and sort them"));
        }
    }
    Ok(())
}

pub(super) fn rank_message() -> String {
    format!("a shape has at most {RANK_MAX} dimensions")
}
