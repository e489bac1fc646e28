//! ONNX Runtime: every operator and type, from a library found on this machine.
//!
//! All lanes of a model call one session, so weights and packed weights are in memory once, and each lane's calls have an
//! arena of their own; a model that brings its own operators or another provider gets a session a lane.

mod arena;
mod library;
mod operators;
mod providers;
mod session;
mod settings;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::AsPointer;
use ort::ErrorCode;
use ort::session::builder::SessionBuilder;
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use protocol::{Tensor, TensorSpec};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};

use crate::graph::{self, Description, Port, PortKind};
use crate::lanes::Lanes;
use crate::memory::Meter;
use crate::{Search, reason};
use arena::LaneArena;
use library::Library;
pub(crate) use operators::named as operators;
use providers::{Offers as _, Provider};
use session::{Callable, Control};
use settings::{Settings, Shrink};

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

    /// The providers beside the CPU's own that the library was built with, by its names.
    pub fn providers(&self) -> Vec<&'static str> {
        let offered = providers::Name::ALL.into_iter();
        let offered = offered.filter(|name| providers::Loaded.has(*name));
        offered.map(providers::Name::name).collect()
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
            settings: Settings::of(source, options.frugal).map_err(refuse)?,
            providers: providers::wanted(&source.config, &providers::Loaded).map_err(refuse)?,
            operators: operators::libraries(source).map_err(refuse)?,
        };
        let meter = Meter::start();
        let session = recipe.session()?;
        let memory_bytes = meter.stop(&source.path);
        let description = completed(declared, session.session())?;
        let (inputs, outputs) = description.specs(&source.inputs).map_err(refuse)?;
        Ok(Arc::new(OrtModel {
            inputs,
            outputs: outputs.into(),
            lanes: Lanes::new(session, recipe.shared()),
            memory_bytes,
            recipe,
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
    settings: Settings,
    providers: Vec<Provider>,
    /// Libraries of custom operators.
    operators: Vec<PathBuf>,
}

impl Recipe {
    /// Whether lanes call one session. Operators that are not ONNX Runtime's own promise nothing about calls at once.
    fn shared(&self) -> bool {
        self.settings.shared && self.providers.is_empty() && self.operators.is_empty()
    }

    /// Whether each lane takes its calls' memory from an arena of its own, and not from its session's.
    fn arena_a_lane(&self) -> bool {
        let settings = &self.settings;
        self.shared() && settings.arena && settings.shrink == Shrink::Auto && self.library.arenas
    }

    fn session(&self) -> Result<Arc<Callable>, EngineError> {
        let commit = || self.options()?.commit_from_file(&self.path);
        // The wrapper panics on types it does not know; that costs this load, not the process.
        let session = catch_unwind(AssertUnwindSafe(commit))
            .map_err(|_| failed("it panicked while reading the model"))?
            .map_err(|error| match error.code() {
                ErrorCode::NoSuchFile => failed(reason::about(&self.path, error.message())),
                _ => refuse(reason::about(&self.path, error.message())),
            })?;
        let callable = Callable::new(session)
            .map_err(|_| refuse("the name of an input or output contains a NUL character"))?;
        Ok(Arc::new(callable))
    }

    fn options(&self) -> ort::Result<SessionBuilder> {
        let settings = &self.settings;
        let builder = Session::builder(&self.library.environment)?
            .with_optimization_level(settings.level.into())?
            // Memory plans are kept for each input shape ever seen, without bound.
            .with_memory_pattern(settings.pattern.unwrap_or(self.static_shapes))?;
        let builder = if settings.device_allocator {
            builder.with_config_entry("session.use_device_allocator_for_initializers", "1")?
        } else {
            builder
        };
        let builder = if self.arena_a_lane() {
            builder.with_env_allocators()?
        } else if settings.arena {
            builder
        } else {
            without_arena(builder)?
        };
        let builder = self
            .operators
            .iter()
            .try_fold(builder, SessionBuilder::with_operator_library)?;
        let dispatches: Vec<_> = self.providers.iter().map(Provider::dispatch).collect();
        self.threaded(builder.with_execution_providers(dispatches)?)
    }

    /// A call of one thread runs where it is; calls of more share the process's one pool. Only who asks for threads
    /// across branches gets a pool of the model's own.
    fn threaded(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        let Some(branches) = self.settings.branches else {
            let builder = builder.with_parallel_execution(false)?;
            return if self.threads > 1 {
                Ok(builder)
            } else {
                own_threads(builder, 1, 1)
            };
        };
        let most = self.library.threads;
        let branches = if branches == 0 {
            most
        } else {
            branches.min(most)
        };
        own_threads(
            builder.with_parallel_execution(true)?,
            self.threads,
            branches,
        )
    }
}

fn own_threads(
    builder: SessionBuilder,
    within: usize,
    across: usize,
) -> ort::Result<SessionBuilder> {
    Ok(builder
        .with_independent_thread_pool()?
        .with_intra_threads(within)?
        .with_inter_threads(across)?
        // Spinning threads starve the other lanes on a busy machine.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?)
}

#[expect(unsafe_code, reason = "ort has no word for this setting")]
fn without_arena(mut builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    let disable = ort::api().DisableCpuMemArena;
    // SAFETY: the builder's options are valid while it is borrowed, and nobody else has them.
    let status = unsafe { disable(builder.ptr_mut()) };
    // SAFETY: the status came from the call above and is read once.
    unsafe { ort::Error::result_from_status(status) }?;
    Ok(builder)
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
    lanes: Lanes<Callable>,
    memory_bytes: u64,
}

impl Loaded for OrtModel {
    fn steady(&self) -> bool {
        self.recipe.operators.is_empty() && self.recipe.providers.is_empty()
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        let session = self.lanes.next(|| self.recipe.session())?;
        let own = self.recipe.arena_a_lane();
        let arena = own.then(|| LaneArena::new(&self.recipe.library.environment));
        let shrink = if own {
            Shrink::Never
        } else {
            self.recipe.settings.shrink.clone()
        };
        Ok(Box::new(OrtLane {
            session,
            arena: arena.transpose().map_err(|error| failed(error.message()))?,
            outputs: Arc::clone(&self.outputs),
            shrink,
            static_shapes: self.recipe.static_shapes,
            control: Control::default(),
            calls: 0,
        }))
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

#[derive(Debug)]
struct OrtLane {
    session: Arc<Callable>,
    arena: Option<LaneArena>,
    outputs: Arc<[TensorSpec]>,
    shrink: Shrink,
    static_shapes: bool,
    control: Control,
    /// Counts calls, for shrinking the arena.
    calls: u32,
}

impl Lane for OrtLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run {
            inputs,
            wanted,
            stop,
        } = *call;
        let expected = self.session.session().inputs().len();
        if inputs.len() != expected {
            return Err(crate::input_count(expected, inputs.len()));
        }
        let bound = inputs
            .iter()
            .map(values::bind)
            .collect::<Result<Vec<SessionInputValue<'_>>, _>>()?;
        let shrink = self.shrink.at(self.calls, self.static_shapes);
        self.calls = self.calls.wrapping_add(1);
        let options = self
            .control
            .options(shrink)
            .map_err(|error| run_error(&error))?;
        let result = {
            let ended = Arc::clone(&options);
            let _guard = stop.on_set(move || {
                // Fails only where no call could run either.
                let _unheard = ended.terminate();
            });
            let _memory = self.arena.as_mut().map(LaneArena::enter);
            self.session.call(&bound, wanted, &options)
        };
        if stop.is_set() {
            self.control.renew();
        }
        let values = match result {
            Ok(values) => values,
            Err(_) if stop.is_set() => return Err(EngineError::Stopped),
            Err(error) => return Err(run_error(&error)),
        };
        let owner = self.session.session().inner();
        values
            .into_iter()
            .zip(wanted)
            .map(|(value, index)| values::unbind(&self.outputs[*index].name, value, &owner, inputs))
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
