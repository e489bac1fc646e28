//! A child for the tests: its engine doubles `x`, and misbehaves when the first number asks for it.

use std::sync::Arc;
use std::time::Duration;

use protocol::{DataType, Tensor, TensorSpec};
use runtime::engine::{
    Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source, absent, is_absent,
};

#[derive(Debug)]
struct Fake;

#[derive(Debug)]
struct Model([TensorSpec; 1], [TensorSpec; 1]);

#[derive(Debug)]
struct Doubling;

impl Engine for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, _: &Source) -> bool {
        true
    }

    fn load(&self, source: &Source, _: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let content = std::fs::read_to_string(&source.path).unwrap_or_default();
        match content.as_str() {
            "crashes" => std::process::abort(),
            "refuses" => Err(EngineError::unsupported("fake", "an unknown operator")),
            _ => Ok(Arc::new(Model(
                [TensorSpec::new("x", DataType::Fp32, vec![-1])],
                [TensorSpec::new("y", DataType::Fp32, vec![-1])],
            ))),
        }
    }
}

impl Loaded for Model {
    fn inputs(&self) -> &[TensorSpec] {
        &self.0
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.1
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Doubling))
    }

    fn takes_absent(&self) -> bool {
        true
    }

    fn memory_bytes(&self) -> u64 {
        123
    }
}

impl Lane for Doubling {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        if is_absent(&call.inputs[0]) {
            return Ok(vec![absent()]);
        }
        let x: &[f32] = call.inputs[0].elements().unwrap_or_default();
        let y = match x.first() {
            Some(-1.0) => std::process::abort(),
            Some(-2.0) => return Err(EngineError::Input("x is negative".to_owned())),
            Some(-3.0) => {
                while !call.stop.is_set() {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                return Err(EngineError::Stopped);
            }
            _ => x.iter().map(|x| x * 2.0).collect(),
        };
        Tensor::from_elements("y", DataType::Fp32, call.inputs[0].shape.clone(), y)
            .map(|y| vec![y])
            .map_err(|error| EngineError::failed("fake", error.to_string()))
    }
}

fn main() -> std::io::Result<()> {
    isolation::serve(&[Arc::new(Fake)])
}
