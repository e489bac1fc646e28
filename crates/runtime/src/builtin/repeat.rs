use protocol::Tensor;

use super::failed;
use crate::engine::EngineError;

/// Largest output: a small request must not be able to claim the machine's memory.
const BYTES_MAX: usize = 1 << 30;

/// The whole input `count` times, one after the other along the first axis. Row-major bytes repeat likewise, BYTES too.
pub(super) fn run(name: &str, input: &Tensor, count: usize) -> Result<Tensor, EngineError> {
    if input.data.len().saturating_mul(count) > BYTES_MAX {
        return Err(EngineError::Input(format!(
            "input `{}`: {} bytes repeated {count} times are more than {BYTES_MAX}",
            input.name,
            input.data.len()
        )));
    }
    let mut shape = input.shape.clone();
    match shape.first_mut() {
        Some(first) => *first = first.saturating_mul(count),
        None => return Err(failed(format!("input `{}` has no axis", input.name))),
    }
    Tensor::new(name, input.dtype, shape, input.data.repeat(count).into()).map_err(failed)
}
