use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use protocol::config::proto_data_type;
use protocol::{Tensor, TensorSpec};

use super::{DELAY_MAX, execute_delay, failed, number, unsupported};
use crate::engine::{EngineError, Lane, Loaded, Run, Source, absent, is_absent};

/// Gives its inputs back as the outputs in the same places.
#[derive(Debug)]
pub(super) struct Identity {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    names: Arc<[String]>,
    delay: Duration,
    /// `instance_wise_delay_multiplier`: the n-th lane is held n times as often as this says; 0 holds all alike.
    multiplier: u32,
    lanes: AtomicU32,
}

impl Identity {
    pub(super) fn load(source: &Source) -> Result<Self, EngineError> {
        let (inputs, outputs) = (&source.inputs, &source.outputs);
        if inputs.len() != outputs.len() {
            return Err(unsupported(format!(
                "model configuration must have equal input/output pairs: {} inputs, {} outputs configured",
                inputs.len(),
                outputs.len()
            )));
        }
        for (input, output) in inputs.iter().zip(outputs) {
            if input.dtype != output.dtype {
                return Err(unsupported(format!(
                    "expected input and output datatype to match, got {} and {}: `identity` gives input `{}` back as output `{}`",
                    proto_data_type(input.dtype).as_str_name(),
                    proto_data_type(output.dtype).as_str_name(),
                    input.name,
                    output.name
                )));
            }
        }
        let multiplier = number(&source.parameters, "instance_wise_delay_multiplier", 1000)?;
        let creation = number(
            &source.parameters,
            "creation_delay_sec",
            DELAY_MAX.as_secs(),
        )?;
        linger(Duration::from_secs(creation));
        Ok(Self {
            names: outputs.iter().map(|spec| spec.name.clone()).collect(),
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            delay: execute_delay(source)?,
            multiplier: u32::try_from(multiplier).unwrap_or(u32::MAX),
            lanes: AtomicU32::new(0),
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "`creation_delay_sec` makes a slow load, and models load on threads of their own"
)]
fn linger(creation: Duration) {
    if !creation.is_zero() {
        std::thread::sleep(creation);
    }
}

impl Loaded for Identity {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        let lane = self.lanes.fetch_add(1, Ordering::Relaxed);
        let times = self.multiplier.saturating_mul(lane).max(1);
        Ok(Box::new(Runner {
            names: Arc::clone(&self.names),
            delay: self.delay.saturating_mul(times).min(DELAY_MAX),
        }))
    }

    fn delay(&self) -> Duration {
        self.delay
    }

    fn takes_absent(&self) -> bool {
        true
    }

    fn needs_alignment(&self) -> bool {
        false
    }

    /// Only handles move, whatever they hold.
    fn inline_bytes_max(&self) -> usize {
        usize::MAX
    }
}

#[derive(Debug)]
struct Runner {
    names: Arc<[String]>,
    delay: Duration,
}

impl Lane for Runner {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let output = |index: &usize| {
            let (Some(input), Some(name)) = (call.inputs.get(*index), self.names.get(*index))
            else {
                return Err(failed(format!("there is no output {index}")));
            };
            if is_absent(input) {
                return Ok(absent());
            }
            Ok(Tensor {
                name: name.clone(),
                ..input.clone()
            })
        };
        call.wanted.iter().map(output).collect()
    }

    fn delay(&self) -> Option<Duration> {
        Some(self.delay)
    }
}
