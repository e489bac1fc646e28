//! This side: an engine whose models live in children, and who starts a child again after a crash.

use std::ffi::OsString;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::Backoff;
use parking_lot::{Condvar, Mutex};
use protocol::sidecar::Isolation as Wanted;
use protocol::{BufferPool, Tensor, TensorSpec};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Precision, Run, Source};

use crate::arena::LANES_MAX;
use crate::process::{Process, Reports};
use crate::wire::{Fault, Model};

/// Between a crash and the next start; a model that crashes while it loads is tried ever more rarely.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(30);

/// How to start a child: a command whose last argument will be the engine's name.
#[derive(Debug, Clone)]
pub struct Isolation {
    command: Vec<OsString>,
}

impl Isolation {
    pub fn new(command: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            command: command.into_iter().collect(),
        }
    }

    /// The same engine, which puts a model into a process of its own where the model's sidecar wants that.
    pub fn around(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        let mut command = self.command.clone();
        command.push(engine.name().into());
        Arc::new(Isolated { engine, command })
    }
}

#[derive(Debug)]
struct Isolated {
    engine: Arc<dyn Engine>,
    command: Vec<OsString>,
}

impl Engine for Isolated {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn version(&self) -> String {
        self.engine.version()
    }

    fn accepts(&self, source: &Source) -> bool {
        self.engine.accepts(source)
    }

    fn precisions(&self) -> &[Precision] {
        self.engine.precisions()
    }

    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        if source.sidecar.isolation == Wanted::Thread {
            return self.engine.load(source, options);
        }
        let name = self.engine.name();
        let model = Model::new(name, source, options);
        let (process, loaded, reports) =
            Process::start(&self.command, &model).map_err(|fault| fault.of(name))?;
        let shared = Arc::new(Shared {
            engine: name,
            name: source.model.clone(),
            command: self.command.clone(),
            model,
            buffers: BufferPool::default(),
            now: Mutex::new(Now {
                process: Ok(process),
                generation: 0,
                lanes: Vec::new(),
                closed: false,
            }),
            closing: Condvar::new(),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("isolated-model".to_owned())
            .spawn(move || watch(&weak, reports))
            .map_err(|error| {
                EngineError::failed(name, format!("no thread to watch it: {error}"))
            })?;
        let specs = |specs: Vec<_>| specs.into_iter().map(TensorSpec::from).collect();
        Ok(Arc::new(IsolatedModel {
            inputs: specs(loaded.inputs),
            outputs: specs(loaded.outputs),
            delay: loaded.delay,
            memory_bytes: loaded.memory_bytes,
            takes_absent: loaded.takes_absent,
            owner: Arc::new(Owner(shared)),
        }))
    }
}

#[derive(Debug)]
struct Shared {
    engine: &'static str,
    name: String,
    command: Vec<OsString>,
    model: Model,
    buffers: BufferPool,
    now: Mutex<Now>,
    /// Wakes whoever waits to start a child again.
    closing: Condvar,
}

#[derive(Debug)]
struct Now {
    /// The child, or how it ended.
    process: Result<Arc<Process>, String>,
    /// Children before this one: a lane of an earlier child must be opened again.
    generation: u64,
    /// Windows in use, by index.
    lanes: Vec<bool>,
    closed: bool,
}

/// Everybody who uses the model holds this; without them the child ends.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let mut now = self.0.now.lock();
        now.closed = true;
        if let Ok(process) = &now.process {
            process.kill();
        }
        self.0.closing.notify_all();
    }
}

/// Listens to one child after the other until the model is unloaded.
fn watch(shared: &Weak<Shared>, mut reports: Reports) {
    loop {
        let Some(process) = shared.upgrade().and_then(|shared| shared.process().ok()) else {
            return;
        };
        let reason = process.listen(&mut reports);
        drop(process);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match shared.again(&reason) {
            Some(next) => reports = next,
            None => return,
        }
    }
}

impl Shared {
    fn process(&self) -> Result<Arc<Process>, Fault> {
        self.now
            .lock()
            .process
            .clone()
            .map_err(|reason| Fault::Gone(format!("{reason}, and is being started again")))
    }

    /// Starts children until one has loaded the model; none when nobody needs it any more.
    fn again(&self, reason: &str) -> Option<Reports> {
        let mut now = self.now.lock();
        now.process = Err(reason.to_owned());
        if now.closed {
            return None;
        }
        drop(now);
        tracing::error!(
            model = self.name,
            reason,
            "the model's process is gone; its calls in flight failed, and it is started again"
        );
        let seed = u64::from(std::process::id());
        let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX, seed);
        loop {
            let wait = backoff.next_wait();
            let mut now = self.now.lock();
            if !now.closed {
                let _woken = self.closing.wait_for(&mut now, wait);
            }
            if now.closed {
                return None;
            }
            drop(now);
            match Process::start(&self.command, &self.model) {
                Ok((process, _loaded, reports)) => {
                    let mut now = self.now.lock();
                    if now.closed {
                        // Dropping the process ends it.
                        return None;
                    }
                    now.process = Ok(process);
                    now.generation += 1;
                    tracing::info!(model = self.name, "the model's process is back");
                    return Some(reports);
                }
                Err(fault) => {
                    let error = fault.of(self.engine);
                    tracing::error!(model = self.name, %error, "the model's process does not start");
                }
            }
        }
    }

    /// A window that no other lane has.
    fn window(&self) -> Result<u64, Fault> {
        let mut now = self.now.lock();
        let free = now.lanes.iter().position(|used| !used);
        let index = free.unwrap_or(now.lanes.len());
        if index as u64 >= LANES_MAX {
            return Err(Fault::Failed(format!("more than {LANES_MAX} lanes")));
        }
        match now.lanes.get_mut(index) {
            Some(used) => *used = true,
            None => now.lanes.push(true),
        }
        Ok(index as u64)
    }
}

struct IsolatedModel {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    delay: Duration,
    memory_bytes: u64,
    takes_absent: bool,
    owner: Arc<Owner>,
}

impl fmt::Debug for IsolatedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IsolatedModel")
            .field("model", &self.owner.0.name)
            .finish_non_exhaustive()
    }
}

impl Loaded for IsolatedModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        let engine = self.owner.0.engine;
        let window = self.owner.0.window().map_err(|fault| fault.of(engine))?;
        let mut lane = IsolatedLane {
            owner: Arc::clone(&self.owner),
            window,
            open: None,
        };
        lane.opened().map_err(|fault| fault.of(engine))?;
        Ok(Box::new(lane))
    }

    fn delay(&self) -> Duration {
        self.delay
    }

    /// Bytes are copied to the child whatever their address.
    fn needs_alignment(&self) -> bool {
        false
    }

    fn takes_absent(&self) -> bool {
        self.takes_absent
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

#[derive(Debug)]
struct IsolatedLane {
    owner: Arc<Owner>,
    window: u64,
    /// The generation of the child in which it is open.
    open: Option<u64>,
}

impl IsolatedLane {
    /// The child of this moment, with this lane open in it.
    fn opened(&mut self) -> Result<Arc<Process>, Fault> {
        let shared = &self.owner.0;
        let process = shared.process()?;
        let generation = shared.now.lock().generation;
        if self.open != Some(generation) {
            process.open_lane(self.window)?;
            self.open = Some(generation);
        }
        Ok(process)
    }
}

impl Lane for IsolatedLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let engine = self.owner.0.engine;
        self.opened()
            .and_then(|process| process.run(self.window, call, &self.owner.0.buffers))
            .map_err(|fault| fault.of(engine))
    }
}

impl Drop for IsolatedLane {
    fn drop(&mut self) {
        if let (Some(_), Ok(process)) = (self.open, self.owner.0.process()) {
            process.close_lane(self.window);
        }
        let index = usize::try_from(self.window).unwrap_or(usize::MAX);
        if let Some(used) = self.owner.0.now.lock().lanes.get_mut(index) {
            *used = false;
        }
    }
}
