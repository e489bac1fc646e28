//! Triton's ragged batches: inputs of different lengths end to end, inputs that tell the model where each request's part
//! lies, and outputs that are cut up by the requests' shapes.
//!
//! [`Ragged`] stands before the engine and takes requests as clients send them, so whoever runs one request need not know
//! of it. Several run together as one call: the inputs of each, one request after the other, and `wanted` as often; the
//! outputs come back in the same order.

mod made;
mod plan;

use std::sync::Arc;

use protocol::{BufferPool, Tensor, TensorSpec};

use crate::engine::{EngineError, Lane, Loaded, Run};

pub(crate) use plan::Plan;

/// A model as its clients see it.
#[derive(Debug)]
pub(crate) struct Ragged {
    pub(crate) model: Arc<dyn Loaded>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) buffers: BufferPool,
}

impl Loaded for Ragged {
    fn inputs(&self) -> &[TensorSpec] {
        self.plan.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.plan.outputs()
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(RaggedLane {
            lane: self.model.lane()?,
            plan: Arc::clone(&self.plan),
            buffers: self.buffers.clone(),
        }))
    }

    fn delay(&self) -> std::time::Duration {
        self.model.delay()
    }

    /// What is joined is aligned by that.
    fn needs_alignment(&self) -> bool {
        false
    }

    fn takes_absent(&self) -> bool {
        self.model.takes_absent()
    }

    fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }
}

#[derive(Debug)]
pub(crate) struct RaggedLane {
    pub(crate) lane: Box<dyn Lane>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) buffers: BufferPool,
}

impl Lane for RaggedLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let each = self.plan.inputs().len().max(1);
        let requests: Vec<&[Tensor]> = call.inputs.chunks(each).collect();
        let wanted = &call.wanted[..call.wanted.len() / requests.len().max(1)];
        let inputs = self.plan.gather(&requests, &self.buffers)?;
        let outputs = self.lane.run(&Run {
            inputs: &inputs,
            wanted,
            stop: call.stop,
        })?;
        let parts: Vec<Vec<Tensor>> = outputs
            .iter()
            .zip(wanted)
            .map(|(output, index)| self.plan.cut(*index, output, &requests))
            .collect::<Result<_, _>>()?;
        let of_request = |request: usize| parts.iter().map(move |parts| parts[request].clone());
        Ok((0..requests.len()).flat_map(of_request).collect())
    }

    fn delay(&self) -> Option<std::time::Duration> {
        self.lane.delay()
    }
}

#[cfg(test)]
mod tests;
