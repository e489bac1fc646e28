use std::time::Duration;

use protocol::{DataType, Tensor, TensorSpec};

use super::{DELAY_MAX, Expected, check, check_decoupled, elements, failed, number};
use crate::engine::{EngineError, Lane, Loaded, Response, Responses, Run, Source};

/// Answers IN times, each time with IN itself: one call costs the square of its number. The parameters are Triton's:
/// `CUSTOM_INFER_DELAY_NS` and `CUSTOM_OUTPUT_DELAY_NS` come before each answer, the last `CUSTOM_EMPTY_COUNT` answers are
/// left out, and the `CUSTOM_FAIL_COUNT` before them fail (here the first of those ends the call).
#[derive(Debug)]
pub(super) struct Square {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    manner: Manner,
}

#[derive(Debug, Clone, Copy)]
struct Manner {
    delay: Duration,
    failing: u64,
    empty: u64,
}

impl Square {
    pub(super) fn load(source: &Source) -> Result<Self, EngineError> {
        check_decoupled(&source.config, "square")?;
        check(
            "input",
            &source.inputs,
            &[Expected("IN", DataType::Int32, &[1])],
        )?;
        check(
            "output",
            &source.outputs,
            &[Expected("OUT", DataType::Int32, &[1])],
        )?;
        let delay_max = u64::try_from(DELAY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let given = |key, max| number(&source.parameters, key, max);
        let delay = given("CUSTOM_INFER_DELAY_NS", delay_max)?
            .saturating_add(given("CUSTOM_OUTPUT_DELAY_NS", delay_max)?);
        let count_max = u64::from(u32::MAX);
        Ok(Self {
            inputs: source.inputs.clone(),
            outputs: source.outputs.clone(),
            manner: Manner {
                delay: Duration::from_nanos(delay),
                failing: given("CUSTOM_FAIL_COUNT", count_max)?,
                empty: given("CUSTOM_EMPTY_COUNT", count_max)?,
            },
        })
    }
}

impl Loaded for Square {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Runner(self.manner)))
    }

    /// An answer is one number.
    fn inline_bytes_max(&self) -> usize {
        usize::MAX
    }
}

#[derive(Debug)]
struct Runner(Manner);

impl Lane for Runner {
    fn run(&mut self, _call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        Err(failed("`square` answers any number of times"))
    }

    fn respond(&mut self, call: &Run<'_>) -> Result<Box<dyn Responses>, EngineError> {
        let [value] = elements::<i32>(call.inputs, 0)? else {
            return Err(EngineError::Input(
                "unexpected shape for IN input".to_owned(),
            ));
        };
        let shape = call.inputs[0].shape.clone();
        let output = Tensor::from_elements("OUT", DataType::Int32, shape, vec![*value]);
        Ok(Box::new(Squared {
            output: output.map_err(failed)?,
            wanted: call.wanted.len(),
            // A negative number asks for no answer.
            count: u64::try_from(*value).unwrap_or(0),
            done: 0,
            manner: self.0,
        }))
    }
}

#[derive(Debug)]
struct Squared {
    output: Tensor,
    wanted: usize,
    count: u64,
    done: u64,
    manner: Manner,
}

impl Responses for Squared {
    fn next(&mut self) -> Result<Option<Response>, EngineError> {
        let answered = self.count.saturating_sub(self.manner.empty);
        if self.done >= answered {
            return Ok(None);
        }
        if self.done >= answered.saturating_sub(self.manner.failing) {
            return Err(failed("simulated failure"));
        }
        self.done += 1;
        Ok(Some(Response {
            after: self.manner.delay,
            outputs: vec![self.output.clone(); self.wanted],
        }))
    }
}
