//! An engine whose models of backend `double` answer each INT32 input, doubled.

use std::sync::Arc;

use protocol::{Tensor, TensorSpec};

use crate::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};

#[derive(Debug, Clone, Copy)]
struct Double;

#[derive(Debug, Clone)]
struct Model {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Engine for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        source.backend == "double"
    }

    fn load(&self, source: &Source, _options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        Ok(Arc::new(Model {
            inputs: source.inputs.clone(),
            outputs: source.outputs.clone(),
        }))
    }
}

impl Loaded for Model {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(self.clone()))
    }
}

impl Lane for Model {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let doubled = |index: &usize| {
            let input = &call.inputs[*index];
            let values: &[i32] = input.elements().expect("aligned");
            let values = values.iter().map(|value| value.wrapping_mul(2)).collect();
            let name = &self.outputs[*index].name;
            Tensor::from_elements(name, input.dtype, input.shape.clone(), values)
        };
        let outputs: Result<_, _> = call.wanted.iter().map(doubled).collect();
        outputs.map_err(|error| EngineError::failed("double", error.to_string()))
    }
}

pub(super) fn engines() -> [Arc<dyn Engine>; 1] {
    [Arc::new(Double)]
}
