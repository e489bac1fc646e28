//! The other side: holds one model, runs its calls, ends when the socket closes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use protocol::BufferPool;
use runtime::engine::{Engine, EngineError, Lane, Loaded, Run, Stop};

use crate::arena::Arena;
use crate::wire::{self, Fault, Header, Order, Report, Spec};

/// Serves one model until the parent closes the socket, which it also does by ending. The memfd is standard input, the
/// socket standard output; what libraries print goes to standard error.
pub fn serve(engines: &[Arc<dyn Engine>]) -> io::Result<()> {
    let arena = Arena::of(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let socket = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdout(io::stderr())?;
    let mut orders = BufReader::new(socket.try_clone()?);
    let side = Arc::new(Side {
        arena,
        buffers: BufferPool::default(),
        reports: Mutex::new(socket),
        running: Mutex::default(),
    });
    let Some(Order::Load(model)) = wire::receive(&mut orders)? else {
        return Ok(());
    };
    let loaded = match load(engines, *model) {
        Ok(loaded) => loaded,
        Err(fault) => return side.report(&Report::NotLoaded(fault)),
    };
    let specs = |specs: &[protocol::TensorSpec]| specs.iter().map(Spec::from).collect();
    side.report(&Report::Loaded(wire::Loaded {
        inputs: specs(loaded.inputs()),
        outputs: specs(loaded.outputs()),
        delay: loaded.delay(),
        memory_bytes: loaded.memory_bytes(),
        takes_absent: loaded.takes_absent(),
    }))?;
    let mut lanes: HashMap<u64, SyncSender<Job>> = HashMap::new();
    while let Some(order) = wire::receive(&mut orders)? {
        match order {
            Order::Load(_) => {}
            Order::OpenLane { lane } => {
                let (send, jobs) = sync_channel(1);
                lanes.insert(lane, send);
                let (side, loaded) = (Arc::clone(&side), Arc::clone(&loaded));
                std::thread::Builder::new()
                    .name(format!("lane-{lane}"))
                    .spawn(move || side.run_lane(lane, loaded.as_ref(), &jobs))?;
            }
            Order::CloseLane { lane } => {
                lanes.remove(&lane);
            }
            Order::Run {
                call,
                lane,
                inputs,
                wanted,
            } => side.hand_over(lanes.get(&lane), (call, inputs, wanted))?,
            Order::Stop { call } => {
                if let Some(stop) = side.running.lock().get(&call) {
                    stop.set();
                }
            }
        }
    }
    Ok(())
}

struct Job {
    call: u64,
    inputs: Vec<Header>,
    wanted: Vec<usize>,
    stop: Stop,
}

struct Side {
    arena: Arena,
    buffers: BufferPool,
    reports: Mutex<UnixStream>,
    /// Calls that can be stopped; as many as lanes.
    running: Mutex<HashMap<u64, Stop>>,
}

impl Side {
    fn report(&self, report: &Report) -> io::Result<()> {
        wire::send(&mut *self.reports.lock(), report)
    }

    fn hand_over(
        &self,
        lane: Option<&SyncSender<Job>>,
        (call, inputs, wanted): (u64, Vec<Header>, Vec<usize>),
    ) -> io::Result<()> {
        let stop = Stop::default();
        self.running.lock().insert(call, stop.clone());
        let job = Job {
            call,
            inputs,
            wanted,
            stop,
        };
        // A lane has one call at a time, so there is room unless its thread is gone.
        if lane.is_some_and(|lane| lane.try_send(job).is_ok()) {
            return Ok(());
        }
        self.running.lock().remove(&call);
        let result = Err(Fault::Failed("there is no such lane".to_owned()));
        self.report(&Report::Done { call, result })
    }

    /// A lane lives on its own thread from start to end.
    fn run_lane(&self, lane: u64, loaded: &dyn Loaded, jobs: &Receiver<Job>) {
        let mut open = match loaded.lane() {
            Ok(open) => open,
            Err(error) => {
                let fault = error.into();
                // The parent is gone if this fails, and then so are we.
                let _gone = self.report(&Report::NoLane { lane, fault });
                return;
            }
        };
        if self.report(&Report::LaneOpen { lane }).is_err() {
            return;
        }
        while let Ok(job) = jobs.recv() {
            let call = job.call;
            let result = self.run(lane, open.as_mut(), job);
            self.running.lock().remove(&call);
            if self.report(&Report::Done { call, result }).is_err() {
                return;
            }
        }
    }

    fn run(&self, lane: u64, open: &mut dyn Lane, job: Job) -> Result<Vec<Header>, Fault> {
        let inputs = self
            .arena
            .read(lane, job.inputs, &self.buffers)
            .map_err(Fault::Failed)?;
        let outputs = open.run(&Run {
            inputs: &inputs,
            wanted: &job.wanted,
            stop: &job.stop,
        })?;
        self.arena
            .write(lane, &outputs)
            .map_err(|error| Fault::Failed(format!("the answer cannot be handed over: {error}")))
    }
}

fn load(engines: &[Arc<dyn Engine>], model: wire::Model) -> Result<Arc<dyn Loaded>, Fault> {
    let wanted = model.engine.clone();
    let (source, options) = model.source().map_err(Fault::Failed)?;
    let engine = engines
        .iter()
        .find(|engine| engine.name() == wanted)
        .ok_or_else(|| Fault::Unsupported(format!("there is no engine `{wanted}`")))?;
    engine
        .load(&source, options)
        .map_err(|error: EngineError| error.into())
}
