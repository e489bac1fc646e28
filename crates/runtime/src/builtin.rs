//! The built-in engine: backends that need no file. They are the test-beds of queues, deadlines, sequences and wires, and
//! do what Triton's own example backends of the same names do.
//!
//! `identity` gives its inputs back. `repeat` and `square` are decoupled: any number of answers to one call. `sequence` and
//! `dyna_sequence` keep a running sum per sequence; `iterative_sequence` runs a request as often as that says.

mod identity;
mod iterative;
mod repeat;
mod sequence;
mod square;

use std::sync::Arc;
use std::time::Duration;

use protocol::oip::proto::ModelConfig;
use protocol::{DataType, Parameter, Parameters, Tensor, TensorSpec};

use crate::engine::{Engine, EngineError, LoadOptions, Loaded, Source};

const NAME: &str = "builtin";

/// A delay above an hour is a slip, not a test.
const DELAY_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, Default)]
pub struct Builtin;

impl Engine for Builtin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        matches!(
            source.backend.as_str(),
            "identity" | "repeat" | "square" | "sequence" | "dyna_sequence" | "iterative_sequence"
        )
    }

    fn load(&self, source: &Source, _options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        Ok(match source.backend.as_str() {
            "identity" => Arc::new(identity::Identity::load(source)?),
            "repeat" => Arc::new(repeat::Repeat::load(source)?),
            "square" => Arc::new(square::Square::load(source)?),
            "sequence" => Arc::new(sequence::Sequence::load(source)?),
            "dyna_sequence" => Arc::new(sequence::Sequence::load_dynamic(source)?),
            "iterative_sequence" => Arc::new(iterative::Iterative::load(source)?),
            other => return Err(unsupported(format!("no built-in backend `{other}`"))),
        })
    }
}

/// A whole number among the parameters.
fn number(parameters: &Parameters, key: &str, max: u64) -> Result<u64, EngineError> {
    let value = match parameters.get(key) {
        None => Some(0),
        Some(Parameter::Int(value)) => u64::try_from(*value).ok(),
        Some(Parameter::Uint(value)) => Some(*value),
        Some(Parameter::Text(text)) => text.trim().parse().ok(),
        Some(Parameter::Bool(_) | Parameter::Double(_)) => None,
    };
    value.filter(|value| *value <= max).ok_or_else(|| {
        unsupported(format!(
            "parameter `{key}` must be a whole number up to {max}"
        ))
    })
}

/// `execute_delay_ms`.
fn execute_delay(source: &Source) -> Result<Duration, EngineError> {
    let max = u64::try_from(DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    number(&source.parameters, "execute_delay_ms", max).map(Duration::from_millis)
}

/// What a backend's tensors must look like: name, type, dimensions without the batch's; -1 fits any size.
struct Expected(&'static str, DataType, &'static [i64]);

fn check(kind: &str, found: &[TensorSpec], expected: &[Expected]) -> Result<(), EngineError> {
    if found.len() != expected.len() {
        return Err(unsupported(format!(
            "expected {} {kind}s, got {}",
            expected.len(),
            found.len()
        )));
    }
    for (spec, Expected(name, dtype, dims)) in found.iter().zip(expected) {
        let rank = spec.shape.len().saturating_sub(dims.len());
        let own = spec.shape.get(rank..).unwrap_or_default();
        let fits = own.len() == dims.len()
            && rank <= 1
            && own
                .iter()
                .zip(*dims)
                .all(|(own, dim)| *dim < 0 || own == dim);
        if spec.name != *name || spec.dtype != *dtype || !fits {
            return Err(unsupported(format!(
                "expected {kind} `{name}` of type {dtype} and dimensions {dims:?}, got `{}` of type {} and shape {:?}",
                spec.name, spec.dtype, spec.shape
            )));
        }
    }
    Ok(())
}

fn check_decoupled(config: &ModelConfig, backend: &str) -> Result<(), EngineError> {
    let policy = config.model_transaction_policy.as_ref();
    if policy.is_some_and(|policy| policy.decoupled) {
        return Ok(());
    }
    Err(unsupported(format!(
        "backend `{backend}` answers any number of times: set `model_transaction_policy {{ decoupled: true }}`"
    )))
}

/// The elements of an input; the runtime has aligned them.
fn elements<T: bytemuck::Pod>(inputs: &[Tensor], index: usize) -> Result<&[T], EngineError> {
    let input = inputs
        .get(index)
        .ok_or_else(|| failed(format!("there is no input {index}")))?;
    input
        .elements()
        .ok_or_else(|| failed(format!("input `{}` is not aligned", input.name)))
}

fn unsupported(reason: impl Into<String>) -> EngineError {
    EngineError::unsupported(NAME, reason)
}

fn failed(reason: impl ToString) -> EngineError {
    EngineError::failed(NAME, reason.to_string())
}

#[cfg(test)]
mod tests;
