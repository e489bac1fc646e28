use std::collections::HashMap;
use std::time::Duration;

use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::{DataType, Tensor, TensorSpec};

use super::sequence::{SUMS_MAX, Signals, numbers};
use super::{Expected, check, elements, execute_delay, failed};
use crate::engine::{EngineError, Lane, Loaded, Run, Source};

/// Counts down: INPUT says how many runs a request takes, OUTPUT how many are left, RESCHEDULE whether there are any.
#[derive(Debug)]
pub(super) struct Iterative {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// None where nothing runs a request again.
    signals: Option<Signals>,
    delay: Duration,
}

impl Iterative {
    pub(super) fn load(source: &Source) -> Result<Self, EngineError> {
        let shape = &[1];
        check(
            "input",
            &source.inputs,
            &[Expected("INPUT", DataType::Int32, shape)],
        )?;
        check(
            "output",
            &source.outputs,
            &[Expected("OUTPUT", DataType::Int32, shape)],
        )?;
        let mut inputs = source.inputs.clone();
        let signals = match &source.config.scheduling_choice {
            Some(SchedulingChoice::SequenceBatching(batching)) if batching.iterative_sequence => {
                let names = ["START", "READY", "CORRID"];
                Some(Signals::of(source, &names, &mut inputs)?)
            }
            _ => None,
        };
        let mut outputs = source.outputs.clone();
        outputs.push(TensorSpec::new(
            "RESCHEDULE",
            DataType::Bool,
            outputs[0].shape.clone(),
        ));
        Ok(Self {
            inputs,
            outputs,
            signals,
            delay: execute_delay(source)?,
        })
    }
}

impl Loaded for Iterative {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Runner {
            signals: self.signals,
            left: HashMap::new(),
        }))
    }

    fn delay(&self) -> Duration {
        self.delay
    }

    fn inline_bytes_max(&self) -> usize {
        64 << 10
    }
}

#[derive(Debug)]
struct Runner {
    signals: Option<Signals>,
    /// By CORRID, the runs that are left.
    left: HashMap<u64, i32>,
}

impl Runner {
    /// One row's run; `key` is none where it is its request's only one.
    fn run(&mut self, asked: Option<i32>, key: Option<u64>) -> (i32, bool) {
        let before = asked.or_else(|| self.left.get(&key?).copied());
        let left = before.unwrap_or(0).saturating_sub(1);
        if let Some(key) = key {
            self.left.remove(&key);
            if left > 0 {
                // Requests whose callers left are never run again.
                if self.left.len() >= SUMS_MAX {
                    self.left.clear();
                }
                self.left.insert(key, left);
            }
        }
        (left, left > 0)
    }
}

impl Lane for Runner {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let values = elements::<i32>(call.inputs, 0)?;
        let mut rows = Vec::with_capacity(values.len());
        if let Some(signals) = self.signals {
            let starts = elements::<i32>(call.inputs, signals.start)?;
            let readies = elements::<i32>(call.inputs, signals.ready)?;
            let ids = signals.id.map(|id| numbers(&call.inputs[id]));
            let ids = ids.unwrap_or_else(|| Ok(Vec::new()))?;
            let signals = starts.iter().zip(readies).zip(ids);
            for (value, ((start, ready), id)) in values.iter().zip(signals) {
                rows.push(match (*ready, *start) {
                    (0, _) => (0, false),
                    (_, 0) => self.run(None, Some(id)),
                    _ => self.run(Some(*value), Some(id)),
                });
            }
        } else {
            rows.extend(values.iter().map(|value| self.run(Some(*value), None)));
            if rows.iter().any(|(_, again)| *again) {
                return Err(failed(
                    "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, and nothing runs it again: set sequence_batching { iterative_sequence: true }",
                ));
            }
        }
        let shape = &call.inputs[0].shape;
        let (left, again): (Vec<i32>, Vec<u8>) = rows
            .into_iter()
            .map(|(left, again)| (left, u8::from(again)))
            .unzip();
        let outputs = call.wanted.iter().map(|output| match output {
            0 => Tensor::from_elements("OUTPUT", DataType::Int32, shape.clone(), left.clone()),
            _ => Tensor::from_elements("RESCHEDULE", DataType::Bool, shape.clone(), again.clone()),
        });
        outputs.collect::<Result<_, _>>().map_err(failed)
    }
}
