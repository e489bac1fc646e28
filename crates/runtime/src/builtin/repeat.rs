use std::time::Duration;

use protocol::{DataType, Tensor, TensorSpec};

use super::{Expected, check, check_decoupled, elements, failed, unsupported};
use crate::engine::{EngineError, Lane, Loaded, Response, Responses, Run, Source};

/// Answers once for each element of IN, with the element in OUT and its number in IDX, after as many milliseconds as its
/// place in DELAY says. Where Triton frees its instance WAIT milliseconds after the call began, the lane here is held at
/// least that long, and until the last answer.
#[derive(Debug)]
pub(super) struct Repeat {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

const IN: usize = 0;
const DELAY: usize = 1;

impl Repeat {
    pub(super) fn load(source: &Source) -> Result<Self, EngineError> {
        check_decoupled(&source.config, "repeat")?;
        if source.config.max_batch_size > 0 {
            return Err(unsupported(
                "repeat backend only supports models with max_batch_size == 0",
            ));
        }
        let inputs = [
            Expected("IN", DataType::Int32, &[-1]),
            Expected("DELAY", DataType::Uint32, &[-1]),
            Expected("WAIT", DataType::Uint32, &[1]),
        ];
        let outputs = [
            Expected("OUT", DataType::Int32, &[1]),
            Expected("IDX", DataType::Uint32, &[1]),
        ];
        check("input", &source.inputs, &inputs)?;
        check("output", &source.outputs, &outputs)?;
        Ok(Self {
            inputs: source.inputs.clone(),
            outputs: source.outputs.clone(),
        })
    }
}

impl Loaded for Repeat {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Runner))
    }

    /// An answer is two numbers.
    fn inline_bytes_max(&self) -> usize {
        usize::MAX
    }
}

#[derive(Debug)]
struct Runner;

impl Lane for Runner {
    fn run(&mut self, _call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        Err(failed("`repeat` answers any number of times"))
    }

    fn respond(&mut self, call: &Run<'_>) -> Result<Box<dyn Responses>, EngineError> {
        let [values, delays, _wait] = call.inputs else {
            return Err(failed("expected three inputs"));
        };
        if values.shape != delays.shape {
            return Err(EngineError::Input(format!(
                "expected IN and DELAY shape to match, got {:?} and {:?}",
                values.shape, delays.shape
            )));
        }
        // Read now, so that what is wrong with them is said before the first answer.
        elements::<i32>(call.inputs, IN)?;
        elements::<u32>(call.inputs, DELAY)?;
        Ok(Box::new(Repeated {
            inputs: [values.clone(), delays.clone()],
            wanted: call.wanted.to_vec(),
            next: 0,
        }))
    }
}

#[derive(Debug)]
struct Repeated {
    inputs: [Tensor; 2],
    wanted: Vec<usize>,
    next: u32,
}

impl Responses for Repeated {
    fn next(&mut self) -> Result<Option<Response>, EngineError> {
        let index = usize::try_from(self.next).unwrap_or(usize::MAX);
        let value = elements::<i32>(&self.inputs, IN)?.get(index).copied();
        let delay = elements::<u32>(&self.inputs, DELAY)?.get(index).copied();
        let (Some(value), Some(delay)) = (value, delay) else {
            return Ok(None);
        };
        let outputs = self.wanted.iter().map(|output| match output {
            0 => Tensor::from_elements("OUT", DataType::Int32, vec![1], vec![value]),
            _ => Tensor::from_elements("IDX", DataType::Uint32, vec![1], vec![self.next]),
        });
        let outputs = outputs.collect::<Result<_, _>>().map_err(failed)?;
        self.next = self.next.saturating_add(1);
        Ok(Some(Response {
            after: Duration::from_millis(u64::from(delay)),
            outputs,
        }))
    }
}
