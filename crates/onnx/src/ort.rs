//! ONNX Runtime: every operator and type, from a library found on this machine.
//!
//! One session is one lane, for a session runs one call at a time here.

mod library;
mod values;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::ErrorCode;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use parking_lot::Mutex;
use protocol::{Tensor, TensorSpec};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};

use crate::graph::{self, Description, Port, PortKind};
use crate::{memory, reason};
use library::Library;

pub use library::Search;

const NAME: &str = "onnxruntime";

/// The engine behind a library of ONNX Runtime 1.20 or newer.
#[derive(Debug, Clone)]
pub struct OrtEngine {
    library: Arc<Library>,
}

impl OrtEngine {
    /// Finds and loads the library. A process can load one only: later calls return the first.
    pub fn find(search: &Search) -> Result<Self, EngineError> {
        let library = library::find(search)?;
        Ok(Self { library })
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.library.path
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.library.version.clone()
    }

    fn accepts(&self, source: &Source) -> bool {
        crate::is_onnx(source)
    }

    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let declared = graph::describe(&source.path).map_err(|error| refuse(error.to_string()))?;
        declared.check_kinds().map_err(refuse)?;
        let recipe = Recipe {
            library: Arc::clone(&self.library),
            path: source.path.clone(),
            threads: options.threads.max(1),
            static_shapes: declared.inputs.iter().all(Port::is_static),
        };
        let session = recipe.session()?;
        let description = completed(declared, &session)?;
        let (inputs, outputs) = description.specs(&source.inputs).map_err(refuse)?;
        Ok(Arc::new(OrtModel {
            recipe,
            inputs,
            outputs: outputs.into(),
            first: Mutex::new(Some(session)),
        }))
    }
}

/// What a session is made of.
#[derive(Debug)]
struct Recipe {
    library: Arc<Library>,
    path: PathBuf,
    threads: usize,
    static_shapes: bool,
}

impl Recipe {
    fn session(&self) -> Result<Session, EngineError> {
        let commit = || self.options()?.commit_from_file(&self.path);
        // The wrapper panics on types it does not know; that costs this load, not the process.
        let session = catch_unwind(AssertUnwindSafe(commit))
            .map_err(|_| failed("it panicked while reading the model"))?
            .map_err(|error| match error.code() {
                ErrorCode::NoSuchFile => failed(reason::about(&self.path, error.message())),
                _ => refuse(reason::about(&self.path, error.message())),
            });
        memory::give_back();
        session
    }

    fn options(&self) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.library.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_parallel_execution(false)?
            .with_inter_threads(1)?
            .with_intra_threads(self.threads)?
            // Spinning threads starve the other lanes on a busy machine.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Memory plans are kept for each input shape ever seen, without bound.
            .with_memory_pattern(self.static_shapes)?)
    }
}

/// Fills in what the file does not declare and ONNX Runtime inferred, and checks that both speak of the same ports.
fn completed(declared: Description, session: &Session) -> Result<Description, EngineError> {
    let fill = |ports: Vec<Port>, outlets: &[Outlet]| {
        if ports.len() != outlets.len() {
            return Err(refuse(
                "its inputs or outputs are not those that the file declares",
            ));
        }
        ports
            .into_iter()
            .zip(outlets)
            .map(|(port, outlet)| filled(port, outlet))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Description {
        inputs: fill(declared.inputs, session.inputs())?,
        outputs: fill(declared.outputs, session.outputs())?,
    })
}

fn filled(mut port: Port, outlet: &Outlet) -> Result<Port, EngineError> {
    if port.name != outlet.name() {
        return Err(refuse(format!(
            "the file declares `{}` where the session has `{}`",
            port.name,
            outlet.name()
        )));
    }
    if let ValueType::Tensor { ty, shape, .. } = outlet.dtype() {
        if port.kind == PortKind::Undeclared {
            port.kind = values::data_type(*ty).map_or(port.kind, PortKind::Tensor);
        }
        // A shape that is not known has no dimensions here, just like a scalar's.
        if port.shape.is_none() && !shape.is_empty() {
            port.shape = Some(shape.to_vec());
        }
    }
    Ok(port)
}

/// A model of which the first session exists.
#[derive(Debug)]
struct OrtModel {
    recipe: Recipe,
    inputs: Vec<TensorSpec>,
    outputs: Arc<[TensorSpec]>,
    /// Made at load, waiting for the first lane.
    first: Mutex<Option<Session>>,
}

impl Loaded for OrtModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        let first = self.first.lock().take();
        let session = match first {
            Some(session) => session,
            None => self.recipe.session()?,
        };
        Ok(Box::new(OrtLane {
            session,
            outputs: Arc::clone(&self.outputs),
            selected: None,
        }))
    }
}

struct OrtLane {
    session: Session,
    outputs: Arc<[TensorSpec]>,
    /// The last call's choice of outputs: most callers always make the same.
    selected: Option<(Vec<usize>, RunOptions<HasSelectedOutputs>)>,
}

impl fmt::Debug for OrtLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrtLane")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl OrtLane {
    fn select(&mut self, wanted: &[usize]) -> Result<(), EngineError> {
        if self
            .selected
            .as_ref()
            .is_some_and(|(last, _)| last == wanted)
        {
            return Ok(());
        }
        let selector = wanted
            .iter()
            .fold(OutputSelector::no_default(), |selector, index| {
                selector.with(self.outputs[*index].name.as_str())
            });
        let options = RunOptions::new().map_err(|error| run_error(&error))?;
        self.selected = Some((wanted.to_vec(), options.with_outputs(selector)));
        Ok(())
    }
}

impl Lane for OrtLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run { inputs, wanted, .. } = *call;
        let expected = self.session.inputs().len();
        if inputs.len() != expected {
            return Err(crate::input_count(expected, inputs.len()));
        }
        self.select(wanted)?;
        let Some((_, options)) = &self.selected else {
            return Err(failed("no outputs selected"));
        };
        let bound = inputs
            .iter()
            .map(values::bind)
            .collect::<Result<Vec<SessionInputValue<'_>>, _>>()?;
        let owner = self.session.inner();
        self.session
            .run_with_options::<_, 0>(bound.as_slice(), options)
            .map_err(|error| run_error(&error))?
            .into_iter()
            .map(|(name, value)| values::unbind(name, value, &owner, inputs))
            .collect()
    }
}

/// What only the engine could see about the inputs is the caller's to mend; the rest is ours.
fn run_error(error: &ort::Error) -> EngineError {
    let words = reason::public(error.message());
    match error.code() {
        ErrorCode::InvalidArgument => EngineError::Input(words),
        _ => failed(words),
    }
}

fn refuse(reason: impl Into<String>) -> EngineError {
    EngineError::unsupported(NAME, reason)
}

fn failed(reason: impl Into<String>) -> EngineError {
    EngineError::failed(NAME, reason)
}
