use std::collections::HashMap;

use protocol::config::data_type;
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::oip::proto::model_sequence_batching::ControlInput;
use protocol::oip::proto::model_sequence_batching::control::Kind;
use protocol::tensor::BytesElements;
use protocol::{DataType, Tensor, TensorSpec};

use super::{Expected, check, elements, execute_delay, failed, unsupported};
use crate::engine::{EngineError, Lane, Loaded, Run, Source};

/// A running sum for each sequence, in every element of OUTPUT: START sets it to the sum of INPUT, later requests add
/// theirs. `sequence` keeps it by the batch's row and must be batched `direct`; `dyna_sequence` keeps it by CORRID, which it
/// adds at END.
#[derive(Debug)]
pub(super) struct Sequence {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    signals: Signals,
    delay: std::time::Duration,
}

/// The controls' places among the inputs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signals {
    pub(super) start: usize,
    pub(super) ready: usize,
    pub(super) end: Option<usize>,
    pub(super) id: Option<usize>,
}

/// Sequences that END never closed are forgotten beyond these, the whole lot.
pub(super) const SUMS_MAX: usize = 1 << 16;

impl Sequence {
    pub(super) fn load(source: &Source) -> Result<Self, EngineError> {
        Self::with(source, &["START", "READY"])
    }

    pub(super) fn load_dynamic(source: &Source) -> Result<Self, EngineError> {
        Self::with(source, &["START", "END", "READY", "CORRID"])
    }

    fn with(source: &Source, names: &[&str]) -> Result<Self, EngineError> {
        check(
            "input",
            &source.inputs,
            &[Expected("INPUT", DataType::Int32, &[-1])],
        )?;
        check(
            "output",
            &source.outputs,
            &[Expected("OUTPUT", DataType::Int32, &[-1])],
        )?;
        let mut inputs = source.inputs.clone();
        Ok(Self {
            signals: Signals::of(source, names, &mut inputs)?,
            inputs,
            outputs: source.outputs.clone(),
            delay: execute_delay(source)?,
        })
    }
}

impl Signals {
    /// Those of these names, which become further inputs.
    pub(super) fn of(
        source: &Source,
        names: &[&str],
        inputs: &mut Vec<TensorSpec>,
    ) -> Result<Self, EngineError> {
        let config = &source.config;
        let Some(SchedulingChoice::SequenceBatching(batching)) = &config.scheduling_choice else {
            return Err(unsupported(format!(
                "backend `{}` needs `sequence_batching`",
                source.backend
            )));
        };
        let controls = &batching.control_input;
        let known = |name: &&str| controls.iter().any(|control| control.name == *name);
        if controls.len() != names.len() || !names.iter().all(known) {
            return Err(unsupported(format!(
                "{names:?} must be configured as the control inputs"
            )));
        }
        let mut signals = Self::default();
        let shape = if config.max_batch_size > 0 {
            vec![-1, 1]
        } else {
            vec![1]
        };
        for control in controls {
            let dtype = signals.place(control, inputs.len())?;
            inputs.push(TensorSpec::new(control.name.clone(), dtype, shape.clone()));
        }
        Ok(signals)
    }

    /// Notes where a signal comes in, and says of which type it is.
    fn place(&mut self, control: &ControlInput, place: usize) -> Result<DataType, EngineError> {
        let first = control.control.first();
        let kind = first.map(|first| (first.kind(), first.data_type));
        match (kind, control.name.as_str()) {
            (Some((Kind::ControlSequenceStart, _)), "START") => self.start = place,
            (Some((Kind::ControlSequenceReady, _)), "READY") => self.ready = place,
            (Some((Kind::ControlSequenceEnd, _)), "END") => self.end = Some(place),
            (Some((Kind::ControlSequenceCorrid, dtype)), "CORRID") => {
                self.id = Some(place);
                let known = data_type(dtype)
                    .filter(|dtype| matches!(dtype, DataType::Uint64 | DataType::Bytes));
                return known.ok_or_else(|| {
                    unsupported(
                        "model CORRID control input must have TYPE_UINT64 or TYPE_STRING data-type",
                    )
                });
            }
            (_, name) => {
                return Err(unsupported(format!(
                    "control input `{name}` has another kind than its name says"
                )));
            }
        }
        Ok(DataType::Int32)
    }
}

impl Loaded for Sequence {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Runner {
            signals: self.signals,
            sums: HashMap::new(),
        }))
    }

    fn delay(&self) -> std::time::Duration {
        self.delay
    }

    fn inline_bytes_max(&self) -> usize {
        64 << 10
    }
}

#[derive(Debug)]
struct Runner {
    signals: Signals,
    /// By row, or by CORRID.
    sums: HashMap<u64, i32>,
}

impl Lane for Runner {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Signals {
            start,
            ready,
            end,
            id,
        } = self.signals;
        let (starts, readies) = (
            elements::<i32>(call.inputs, start)?,
            elements::<i32>(call.inputs, ready)?,
        );
        let ends = end.map_or(Ok(&[][..]), |end| elements::<i32>(call.inputs, end))?;
        let ids = id.map_or(Ok(Vec::new()), |id| numbers(&call.inputs[id]))?;
        let values = elements::<i32>(call.inputs, 0)?;
        let width = values.len().checked_div(readies.len()).unwrap_or(0);
        let mut output = Vec::with_capacity(values.len());
        for (row, (start, ready)) in starts.iter().zip(readies).enumerate() {
            let slot = u64::try_from(row).unwrap_or(u64::MAX);
            let key = ids.get(row).copied().unwrap_or(slot);
            let mine = values
                .get(row * width..(row + 1) * width)
                .unwrap_or_default();
            let mut sum = 0;
            if *ready != 0 {
                let added = mine
                    .iter()
                    .fold(0_i32, |sum, value| sum.wrapping_add(*value));
                let before = if *start == 0 {
                    self.sums.get(&key).copied()
                } else {
                    None
                };
                sum = before.unwrap_or(0).wrapping_add(added);
                if ends.get(row).is_some_and(|end| *end != 0) {
                    // As wide as the sums are.
                    let low =
                        i32::from_le_bytes(key.to_le_bytes()[..4].try_into().unwrap_or_default());
                    sum = sum.wrapping_add(low);
                    self.sums.remove(&key);
                } else {
                    if self.sums.len() >= SUMS_MAX {
                        self.sums.clear();
                    }
                    self.sums.insert(key, sum);
                }
            }
            output.extend(std::iter::repeat_n(sum, width));
        }
        let shape = call.inputs[0].shape.clone();
        let output = Tensor::from_elements("OUTPUT", DataType::Int32, shape, output);
        Ok(vec![output.map_err(failed)?; call.wanted.len()])
    }
}

/// Correlation ids; texts must be numbers too.
pub(super) fn numbers(ids: &Tensor) -> Result<Vec<u64>, EngineError> {
    if ids.dtype != DataType::Bytes {
        return elements::<u64>(std::slice::from_ref(ids), 0).map(<[u64]>::to_vec);
    }
    let number = |text: Result<&[u8], ()>| {
        let text = text.ok().and_then(|text| std::str::from_utf8(text).ok());
        // A row without a request has no id.
        let number = text.map(|text| if text.is_empty() { Ok(0) } else { text.parse() });
        number.and_then(Result::ok).ok_or_else(|| {
            EngineError::Input("CORRID must be a number, written as text or not".to_owned())
        })
    };
    BytesElements::new(&ids.data).map(number).collect()
}
