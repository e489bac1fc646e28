//! The built-in engine: backends that need no file. They are the test-beds of queues, deadlines and wires.
//!
//! `identity` gives its inputs back, `square` multiplies each element with itself, `repeat` repeats its inputs
//! `repeat_count` times. All honour `execute_delay_ms`.

mod repeat;
mod square;

use std::sync::Arc;
use std::time::Duration;

use protocol::{DataType, Parameter, Parameters, Tensor, TensorSpec};

use crate::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};

const NAME: &str = "builtin";

/// `execute_delay_ms` above an hour is a slip, not a test.
const DELAY_MS_MAX: u64 = 3_600_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct Builtin;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Identity,
    Square,
    Repeat { count: usize },
}

impl Backend {
    /// Calls up to this size cost less than the way to another thread and back.
    fn inline_bytes_max(self) -> usize {
        match self {
            // Only handles move, whatever they hold.
            Self::Identity => usize::MAX,
            Self::Square => 32 << 10,
            Self::Repeat { count } => (256 << 10) / count.max(1),
        }
    }
}

impl Engine for Builtin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        matches!(source.backend.as_str(), "identity" | "square" | "repeat")
    }

    fn load(&self, source: &Source, _options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let backend = match source.backend.as_str() {
            "identity" => Backend::Identity,
            "square" => Backend::Square,
            "repeat" => Backend::Repeat {
                count: number(&source.parameters, "repeat_count", 1, 1 << 20)?,
            },
            other => return Err(unsupported(format!("no built-in backend `{other}`"))),
        };
        check(backend, &source.inputs, &source.outputs)?;
        let delay_ms = number(&source.parameters, "execute_delay_ms", 0, DELAY_MS_MAX)?;
        Ok(Arc::new(Model {
            backend,
            inputs: source.inputs.clone(),
            outputs: source.outputs.clone(),
            delay: Duration::from_millis(delay_ms),
        }))
    }
}

/// A whole number among the parameters.
fn number<T: TryFrom<u64>>(
    parameters: &Parameters,
    key: &str,
    default: u64,
    max: u64,
) -> Result<T, EngineError> {
    let value = match parameters.get(key) {
        None => Some(default),
        Some(Parameter::Int(value)) => u64::try_from(*value).ok(),
        Some(Parameter::Uint(value)) => Some(*value),
        Some(Parameter::Text(text)) => text.trim().parse().ok(),
        Some(Parameter::Bool(_) | Parameter::Double(_)) => None,
    };
    value
        .filter(|value| *value <= max)
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| {
            unsupported(format!(
                "parameter `{key}` must be a whole number up to {max}"
            ))
        })
}

/// Inputs and outputs pair up by position.
fn check(
    backend: Backend,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Result<(), EngineError> {
    if inputs.is_empty() || inputs.len() != outputs.len() {
        return Err(unsupported(format!(
            "built-in backends need as many outputs as inputs and at least one of each: {} inputs, {} outputs configured",
            inputs.len(),
            outputs.len()
        )));
    }
    for (input, output) in inputs.iter().zip(outputs) {
        if input.dtype != output.dtype {
            return Err(unsupported(format!(
                "input `{}` is {} and output `{}` is {}: a built-in backend keeps the type",
                input.name, input.dtype, output.name, output.dtype
            )));
        }
        if backend == Backend::Square && !square::supports(input.dtype) {
            return Err(unsupported(format!(
                "input `{}`: {} cannot be squared",
                input.name, input.dtype
            )));
        }
        if matches!(backend, Backend::Repeat { .. }) && input.shape.is_empty() {
            return Err(unsupported(format!(
                "input `{}` has no first axis to repeat along",
                input.name
            )));
        }
    }
    Ok(())
}

fn unsupported(reason: String) -> EngineError {
    EngineError::Unsupported {
        engine: NAME,
        reason,
    }
}

#[derive(Debug)]
struct Model {
    backend: Backend,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    delay: Duration,
}

impl Loaded for Model {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Runner {
            backend: self.backend,
            names: self.outputs.iter().map(|spec| spec.name.clone()).collect(),
        }))
    }

    fn delay(&self) -> Duration {
        self.delay
    }

    fn needs_alignment(&self) -> bool {
        self.backend == Backend::Square
    }

    fn inline_bytes_max(&self) -> usize {
        self.backend.inline_bytes_max()
    }
}

#[derive(Debug)]
struct Runner {
    backend: Backend,
    names: Vec<String>,
}

impl Lane for Runner {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run { inputs, wanted, .. } = *call;
        wanted
            .iter()
            .map(|index| {
                let (Some(input), Some(name)) = (inputs.get(*index), self.names.get(*index)) else {
                    return Err(failed(format!("there is no output {index}")));
                };
                match self.backend {
                    Backend::Identity => Ok(Tensor {
                        name: name.clone(),
                        ..input.clone()
                    }),
                    Backend::Square => square::run(name, input),
                    Backend::Repeat { count } => repeat::run(name, input, count),
                }
            })
            .collect()
    }
}

fn failed(reason: impl ToString) -> EngineError {
    EngineError::Failed {
        engine: NAME,
        reason: reason.to_string(),
    }
}

/// Whether elements are numbers we compute with.
fn numeric(dtype: DataType) -> bool {
    !matches!(dtype, DataType::Bool | DataType::Bytes)
}

#[cfg(test)]
mod tests;
