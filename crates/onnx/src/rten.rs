//! rten: ONNX in pure Rust, always there. One model in memory serves all lanes.
//!
//! It computes in f32, i32, i8 and u8 only. What a client sees stays the file's own type; the border converts, and
//! refuses a model whose inputs or outputs it could not carry exactly.

mod border;
mod doubt;
mod threads;

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use protocol::{DataType, Tensor, TensorSpec};
use rten::{Model, ModelOptions, NodeId, RunErrorKind, RunOptions};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};

use self::threads::Pools;
use crate::memory::Meter;
use crate::{graph, reason};

const NAME: &str = "rten";

/// The version in the lock file, which a test compares; the library does not tell.
const VERSION: &str = "0.27.0";

/// The pure-Rust engine.
#[derive(Debug, Default, Clone)]
pub struct RtenEngine {
    pools: Arc<Pools>,
}

impl Engine for RtenEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        crate::is_onnx(source)
    }

    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        crate::no_operator_libraries(source).map_err(refuse)?;
        let description =
            graph::describe(&source.path).map_err(|error| refuse(error.to_string()))?;
        let (inputs, outputs) = description.specs(&source.inputs).map_err(refuse)?;
        check_carried(&inputs, "input")?;
        check_carried(&outputs, "output")?;
        // rten panics on some malformed graphs; that costs this load, not the process.
        let meter = Meter::start();
        let model = catch_unwind(AssertUnwindSafe(|| read(&source.path)))
            .unwrap_or_else(|_| Err(failed("it panicked while reading the model")))?;
        let memory_bytes = meter.stop(&source.path);
        let shared = Shared {
            input_nodes: input_nodes(&model, &inputs)?,
            output_nodes: output_nodes(&model, &outputs)?,
            model,
            inputs,
            outputs,
            threads: options.threads.max(1),
            pools: Arc::clone(&self.pools),
            memory_bytes,
        };
        Ok(Arc::new(RtenModel(Arc::new(shared))))
    }
}

/// Reading rather than mapping: weights inside an ONNX file are copied in either case, and a mapped file that changes
/// underneath is undefined behaviour.
fn read(path: &Path) -> Result<Model, EngineError> {
    let bytes = fs::read(path).map_err(|error| refuse(graph::Error::from(error).to_string()))?;
    let doubt = doubt::doubt(&bytes)
        .map_err(|error| refuse(graph::Error::Broken(error.to_string()).to_string()))?;
    if let Some(doubt) = doubt {
        return Err(refuse(doubt));
    }
    let options = ModelOptions::with_all_ops();
    // Only a path leads to weights in other files, but rten reads paths ending in `.onnx` only.
    let model = if path
        .extension()
        .is_some_and(|extension| extension == "onnx")
    {
        drop(bytes);
        options.load_file(path)
    } else {
        options.load(bytes)
    };
    model.map_err(|error| refuse(reason::about(path, &error.to_string())))
}

fn check_carried(specs: &[TensorSpec], role: &str) -> Result<(), EngineError> {
    let why = |dtype| match dtype {
        DataType::Bool
        | DataType::Uint8
        | DataType::Int8
        | DataType::Int32
        | DataType::Int64
        | DataType::Fp16
        | DataType::Fp32 => None,
        DataType::Fp64 => Some("rten computes FP64 with the precision of FP32"),
        DataType::Bytes => Some("rten has no strings"),
        DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int16
        | DataType::Bf16 => Some("rten does not have this type"),
    };
    for spec in specs {
        if let Some(why) = why(spec.dtype) {
            return Err(refuse(format!(
                "{role} `{}` is {}: {why}",
                spec.name, spec.dtype
            )));
        }
    }
    Ok(())
}

/// rten's ids of the declared inputs, which it keeps in the file's order.
fn input_nodes(model: &Model, specs: &[TensorSpec]) -> Result<Vec<NodeId>, EngineError> {
    let ids = model.input_ids();
    let same = |(id, spec): (&NodeId, &TensorSpec)| {
        let info = model.node_info(*id);
        info.is_some_and(|info| info.name() == Some(spec.name.as_str()))
    };
    if ids.len() == specs.len() && ids.iter().zip(specs).all(same) {
        return Ok(ids.to_vec());
    }
    Err(refuse("its inputs are not those that the file declares"))
}

/// The same for outputs; by place only, for an output that was computed while loading has no name any more.
fn output_nodes(model: &Model, specs: &[TensorSpec]) -> Result<Vec<NodeId>, EngineError> {
    let ids = model.output_ids();
    if ids.len() == specs.len() {
        return Ok(ids.to_vec());
    }
    Err(refuse("its outputs are not those that the file declares"))
}

struct Shared {
    model: Model,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    input_nodes: Vec<NodeId>,
    output_nodes: Vec<NodeId>,
    threads: usize,
    pools: Arc<Pools>,
    memory_bytes: u64,
}

/// A model that rten holds.
struct RtenModel(Arc<Shared>);

impl fmt::Debug for RtenModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RtenModel").field(&self.0.model).finish()
    }
}

impl Loaded for RtenModel {
    fn steady(&self) -> bool {
        true
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.0.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.0.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(RtenLane(Arc::clone(&self.0))))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes
    }
}

/// The model's shared weights; threads are lent to each call.
struct RtenLane(Arc<Shared>);

impl fmt::Debug for RtenLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RtenLane").field(&self.0.model).finish()
    }
}

impl Lane for RtenLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run {
            inputs,
            wanted,
            stop,
        } = *call;
        if stop.is_set() {
            // Once begun, rten runs to the end.
            return Err(EngineError::Stopped);
        }
        let model = &self.0;
        if inputs.len() != model.inputs.len() {
            return Err(crate::input_count(model.inputs.len(), inputs.len()));
        }
        let inputs = inputs
            .iter()
            .zip(&model.input_nodes)
            .map(|(tensor, node)| Ok((*node, border::into_engine(tensor)?)))
            .collect::<Result<Vec<_>, EngineError>>()?;
        let nodes: Vec<NodeId> = wanted.iter().map(|i| model.output_nodes[*i]).collect();
        let values = model
            .pools
            .lend(model.threads, |pool| {
                let options = RunOptions::default().with_thread_pool(Some(pool));
                model.model.run(inputs, &nodes, Some(options))
            })
            .map_err(|error| {
                let words = reason::public(&error.to_string());
                if error.kind() == RunErrorKind::InvalidInput {
                    EngineError::Input(words)
                } else {
                    failed(words)
                }
            })?;
        values
            .into_iter()
            .zip(wanted)
            .map(|(value, index)| border::out_of_engine(value, &model.outputs[*index]))
            .collect()
    }
}

fn refuse(reason: impl Into<String>) -> EngineError {
    EngineError::unsupported(NAME, reason)
}

fn failed(reason: impl Into<String>) -> EngineError {
    EngineError::failed(NAME, reason)
}
