use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use protocol::{Tensor, TensorSpec};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};

use crate::abi;
use crate::library::{self, Library, Node, Refusal};

const NAME: &str = "node";

/// Serves `backend: "node"`: `<version>/model.so` is a library with kapok's node interface.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeEngine;

impl Engine for NodeEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        format!("interface {}", abi::ABI)
    }

    fn accepts(&self, source: &Source) -> bool {
        source.backend == NAME
    }

    fn load(&self, source: &Source, _options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let library = Library::load(&source.path).map_err(refuse)?;
        let parameters: Vec<_> = source
            .parameters
            .iter()
            .map(|(key, value)| (key.clone(), value.to_string()))
            .collect();
        let node = Node::open(library, &parameters).map_err(refused)?;
        let (inputs, outputs) = node.ports().map_err(refused)?;
        Ok(Arc::new(NodeModel {
            node: Mutex::new(Arc::new(node)),
            inputs,
            outputs: outputs.into(),
        }))
    }
}

struct NodeModel {
    /// Locked while a lane is made: the interface has one caller at a time for that.
    node: Mutex<Arc<Node>>,
    inputs: Vec<TensorSpec>,
    outputs: Arc<[TensorSpec]>,
}

impl fmt::Debug for NodeModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeModel")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Loaded for NodeModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        let lane = self.node.lock().lane().map_err(refused)?;
        Ok(Box::new(NodeLane {
            lane,
            inputs: self.inputs.len(),
            outputs: Arc::clone(&self.outputs),
        }))
    }
}

struct NodeLane {
    lane: library::Lane,
    inputs: usize,
    outputs: Arc<[TensorSpec]>,
}

impl fmt::Debug for NodeLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLane").finish_non_exhaustive()
    }
}

impl Lane for NodeLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run {
            inputs,
            wanted,
            stop,
        } = *call;
        if inputs.len() != self.inputs {
            let message = format!(
                "{} inputs given, the model has {}",
                inputs.len(),
                self.inputs
            );
            return Err(EngineError::Input(message));
        }
        let flag = Arc::new(AtomicU8::new(0));
        let raised = Arc::clone(&flag);
        let _guard = stop.on_set(move || raised.store(1, Ordering::Release));
        self.lane
            .run(inputs, (&self.outputs, wanted), &flag)
            .map_err(|refusal| match refusal {
                Refusal::Invalid(said) => EngineError::Input(said),
                Refusal::Stopped => EngineError::Stopped,
                Refusal::Failed(said) => EngineError::failed(NAME, said),
            })
    }
}

fn refused(refusal: Refusal) -> EngineError {
    refuse(match refusal {
        Refusal::Invalid(said) | Refusal::Failed(said) => said,
        Refusal::Stopped => "it says that it was stopped".to_owned(),
    })
}

fn refuse(reason: impl Into<String>) -> EngineError {
    EngineError::unsupported(NAME, reason)
}
