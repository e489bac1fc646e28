//! What an engine must do, in one sitting: load a file, say what goes in and out, hand out lanes, run.
//!
//! ```text
//! Engine::load(source) ──► dyn Loaded (shared: weights, names, shapes)
//!                              └─ lane() ──► dyn Lane (one call at a time: run(call) -> outputs)
//! ```
//! An engine never makes threads that compute beside the lanes' own: [`LoadOptions::threads`] is all it gets per call.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::ErrorKind;
use bytes::Bytes;
use protocol::oip::proto::ModelConfig;
use protocol::sidecar::Sidecar;
use protocol::{DataType, Parameters, Tensor, TensorSpec};

pub use protocol::Precision;

mod holding;
mod stop;

pub use holding::holding;
pub use stop::{Guard, Stop};

/// One model version on disk, or the parameters of a built-in.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The model's name in the repository, for messages.
    pub model: String,
    /// The model file, such as `<repo>/<model>/1/model.onnx`; the folder for a built-in.
    pub path: PathBuf,
    /// `backend` of the configuration: `onnxruntime` for any ONNX file, `identity` and the like for built-ins.
    pub backend: String,
    /// The configuration's free parameters.
    pub parameters: Parameters,
    /// Inputs and outputs as configured; built-ins take theirs from here, others check against the file.
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// The model's folder, `<repo>/<model>`: files that the configuration names are in here.
    pub folder: PathBuf,
    /// The configuration as written: `optimization`, `model_operations` and what else is an engine's own business.
    pub config: Arc<ModelConfig>,
    /// What `kapok.toml` says.
    pub sidecar: Arc<Sidecar>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Compute threads one call may use.
    pub threads: usize,
    /// Lanes that are expected; a hint, more may be made.
    pub lanes: usize,
    /// One of [`Engine::precisions`].
    pub precision: Precision,
    /// Memory is budgeted: what a call needs is given back when it ends, and costs the next call a little.
    pub frugal: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            lanes: 1,
            precision: Precision::Fp32,
            frugal: false,
        }
    }
}

/// A way to run models. One value per process and kind.
pub trait Engine: Send + Sync + fmt::Debug {
    /// The name in `engine = "…"`: `builtin`, `rten`, `onnxruntime`, `openvino`.
    fn name(&self) -> &'static str;

    /// Version of the library behind it, for people.
    fn version(&self) -> String;

    /// Whether it makes sense to try this source here at all (by backend and file name, without reading the file).
    fn accepts(&self, source: &Source) -> bool;

    /// What it can compute FP32 models in on this processor.
    fn precisions(&self) -> &[Precision] {
        &[Precision::Fp32]
    }

    /// Reads and prepares the model. Blocking and heavy: called on a loader thread, never on an async worker.
    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError>;
}

/// A model that is in memory.
pub trait Loaded: Send + Sync + fmt::Debug {
    /// In the model's own order; shapes include the batch dimension, dynamic dimensions are -1.
    fn inputs(&self) -> &[TensorSpec];

    fn outputs(&self) -> &[TensorSpec];

    /// A new lane. Lanes share what they can (weights) and run at the same time.
    fn lane(&self) -> Result<Box<dyn Lane>, EngineError>;

    /// How long a lane is held before it computes: the built-ins' `execute_delay_ms`. The caller waits it out without a
    /// thread, so it can be cancelled and costs no compute.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether inputs must be aligned for their type; false saves a copy where an engine only passes bytes on.
    fn needs_alignment(&self) -> bool {
        true
    }

    /// Calls whose inputs total at most this many bytes finish in well under 0.5 ms and may run where they are.
    fn inline_bytes_max(&self) -> usize {
        0
    }

    /// Whether calls of one size take one time and end by themselves: no owner's code, no other process. Those that are
    /// seen to be quick then run where they are.
    fn steady(&self) -> bool {
        false
    }

    /// Whether calls may lack optional inputs: those are then [`absent`], and outputs may be.
    fn takes_absent(&self) -> bool {
        false
    }

    /// Bytes of memory that this model holds, as measured at load; lanes not included.
    fn memory_bytes(&self) -> u64 {
        0
    }
}

/// One call, as an engine sees it.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// In the order of [`Loaded::inputs`], already checked against it, and aligned for their type unless
    /// [`Loaded::needs_alignment`] is false.
    pub inputs: &'a [Tensor],
    /// Indices into [`Loaded::outputs`]; the answer has exactly those, in that order, named.
    pub wanted: &'a [usize],
    /// Set when nobody waits for the answer any more. An engine that can end its call early does, with
    /// [`EngineError::Stopped`]; others run to the end.
    pub stop: &'a Stop,
}

/// Stands for a tensor that is not there: an optional input that a request left out, or the output it leads to.
pub fn absent() -> Tensor {
    Tensor {
        name: String::new(),
        dtype: DataType::Bytes,
        shape: vec![0],
        data: Bytes::new(),
    }
}

/// Whether a tensor only stands for one. Those that are there have names.
pub fn is_absent(tensor: &Tensor) -> bool {
    tensor.name.is_empty()
}

/// Runs one call at a time.
pub trait Lane: Send + fmt::Debug {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError>;

    /// As [`Self::run`], for a call that nothing stops.
    fn once(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.run(&Run {
            inputs,
            wanted,
            stop: &Stop::default(),
        })
    }

    /// For decoupled models: any number of answers to one call, taken one at a time. Others answer once.
    ///
    /// The answers own what they need, for the thread that asks for one is not the thread that asks for the next; the
    /// lane runs nothing else until they are dropped.
    fn respond(&mut self, call: &Run<'_>) -> Result<Box<dyn Responses>, EngineError> {
        Ok(Box::new(Once(Some(self.run(call)?))))
    }

    /// How long this lane is held before it computes, where that differs from [`Loaded::delay`].
    fn delay(&self) -> Option<Duration> {
        None
    }
}

/// The answers of a decoupled call, made as they are asked for: whoever reads slowly is not computed for.
pub trait Responses: Send + fmt::Debug {
    /// The next answer; none at the end.
    fn next(&mut self) -> Result<Option<Response>, EngineError>;
}

/// One answer among several.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// How long to wait before it is sent; the wait holds no thread.
    pub after: Duration,
    /// As [`Run::wanted`] says.
    pub outputs: Vec<Tensor>,
}

#[derive(Debug)]
struct Once(Option<Vec<Tensor>>);

impl Responses for Once {
    fn next(&mut self) -> Result<Option<Response>, EngineError> {
        Ok(self.0.take().map(|outputs| Response {
            after: Duration::ZERO,
            outputs,
        }))
    }
}

/// Why an engine could not load or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine's library is not on this machine.
    #[error("engine `{engine}` is not available: {reason}")]
    Missing {
        engine: &'static str,
        reason: String,
    },
    /// This engine cannot run this model; another may.
    #[error("engine `{engine}` cannot load the model: {reason}")]
    Unsupported {
        engine: &'static str,
        reason: String,
    },
    /// The call's inputs are wrong in a way only the engine could see.
    #[error("{0}")]
    Input(String),
    /// The call was ended because nobody waited for it.
    #[error("the call was stopped")]
    Stopped,
    /// What runs the model is gone for the moment; the call may be tried again.
    #[error("engine `{engine}` is gone: {reason}")]
    Gone {
        engine: &'static str,
        reason: String,
    },
    /// The call failed inside the engine.
    #[error("engine `{engine}` failed: {reason}")]
    Failed {
        engine: &'static str,
        reason: String,
    },
}

impl EngineError {
    pub fn unsupported(engine: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Unsupported { engine, reason }
    }

    pub fn failed(engine: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Failed { engine, reason }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::Gone { .. } => ErrorKind::Unavailable,
            Self::Stopped => ErrorKind::Cancelled,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Input(_) => ErrorKind::Invalid,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}
