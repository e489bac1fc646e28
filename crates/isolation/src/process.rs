//! One child from its start to its end.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{BufferPool, Tensor};
use runtime::engine::Run;

use crate::arena::Arena;
use crate::wire::{self, Fault, Header, Loaded, Model, Order, Report};

/// A call that does not end within this time of being stopped ends its process: a loop in a library has no other end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How often a waiting call looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Answer {
    LaneOpen,
    Outputs(Vec<Header>),
}

type Waiter = SyncSender<Result<Answer, Fault>>;

/// A child that has loaded its model.
#[derive(Debug)]
pub(crate) struct Process {
    child: Mutex<Child>,
    orders: Mutex<UnixStream>,
    arena: Arena,
    waiting: Mutex<Waiting>,
    next_call: AtomicU64,
}

/// Who waits for what; bounded by lanes.
#[derive(Debug, Default)]
struct Waiting {
    lanes: HashMap<u64, Waiter>,
    calls: HashMap<u64, Waiter>,
    /// Set once the child is gone: nobody may start to wait.
    gone: Option<String>,
}

impl Process {
    /// Starts a child and has it load the model. Blocks until it has, or has not.
    pub(crate) fn start(
        command: &[OsString],
        model: &Model,
    ) -> Result<(Arc<Self>, Loaded, Reports), Fault> {
        let broken = |error: io::Error| Fault::Failed(format!("its process cannot start: {error}"));
        let arena = Arena::new().map_err(broken)?;
        let (ours, theirs) = UnixStream::pair().map_err(broken)?;
        let (program, args) = command
            .split_first()
            .ok_or_else(|| broken(io::Error::other("no program is named")))?;
        let child = Command::new(program)
            .args(args)
            .stdin(arena.share().map_err(broken)?)
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(broken)?;
        let process = Arc::new(Self {
            child: Mutex::new(child),
            orders: Mutex::new(ours.try_clone().map_err(broken)?),
            arena,
            waiting: Mutex::default(),
            next_call: AtomicU64::new(0),
        });
        let mut reports = Reports(BufReader::new(ours));
        let said = process
            .send(&Order::Load(Box::new(model.clone())))
            .and_then(|()| wire::receive(&mut reports.0));
        match said {
            Ok(Some(Report::Loaded(loaded))) => Ok((process, loaded, reports)),
            Ok(Some(Report::NotLoaded(fault))) => Err(fault),
            Ok(Some(_)) => Err(Fault::Failed("its process speaks out of turn".to_owned())),
            Ok(None) | Err(_) => {
                let ended = process.end();
                Err(Fault::Failed(format!(
                    "its process {ended} while it loaded the model"
                )))
            }
        }
    }

    fn send(&self, order: &Order) -> io::Result<()> {
        wire::send(&mut *self.orders.lock(), order)
    }

    pub(crate) fn open_lane(&self, lane: u64) -> Result<(), Fault> {
        let (waiter, answer) = sync_channel(1);
        self.wait_for(|waiting| waiting.lanes.insert(lane, waiter))?;
        self.ask(&Order::OpenLane { lane })?;
        match answer.recv() {
            Ok(Ok(Answer::LaneOpen)) => Ok(()),
            Ok(Ok(Answer::Outputs(_))) | Err(_) => Err(self.gone()),
            Ok(Err(fault)) => Err(fault),
        }
    }

    pub(crate) fn close_lane(&self, lane: u64) {
        // A child that is gone has closed it.
        let _gone = self.send(&Order::CloseLane { lane });
        self.arena.trim(lane);
    }

    /// Runs one call in a lane that is open.
    pub(crate) fn run(
        self: &Arc<Self>,
        lane: u64,
        call: &Run<'_>,
        buffers: &BufferPool,
    ) -> Result<Vec<Tensor>, Fault> {
        let inputs = self
            .arena
            .write(lane, call.inputs)
            .map_err(|error| Fault::Failed(format!("the call cannot be handed over: {error}")))?;
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (waiter, answer) = sync_channel(1);
        self.wait_for(|waiting| waiting.calls.insert(id, waiter))?;
        self.ask(&Order::Run {
            call: id,
            lane,
            inputs,
            wanted: call.wanted.to_vec(),
        })?;
        let process = Arc::clone(self);
        let guard = call.stop.on_set(move || {
            // A child that is gone has stopped.
            let _gone = process.send(&Order::Stop { call: id });
        });
        let answer = self.answer(&answer, call);
        drop(guard);
        let outputs = match answer? {
            Answer::Outputs(headers) => self
                .arena
                .read(lane, headers, buffers)
                .map_err(Fault::Failed),
            Answer::LaneOpen => Err(Fault::Failed("its process speaks out of turn".to_owned())),
        };
        self.arena.trim(lane);
        outputs
    }

    fn answer(
        &self,
        answer: &Receiver<Result<Answer, Fault>>,
        call: &Run<'_>,
    ) -> Result<Answer, Fault> {
        let mut stopped = Duration::ZERO;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
                Err(RecvTimeoutError::Timeout) if call.stop.is_set() => stopped += LOOK,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if stopped >= STOP_GRACE {
                tracing::error!("a call did not end after it was stopped; its process is ended");
                self.kill();
                stopped = Duration::ZERO;
            }
        }
    }

    fn wait_for(&self, enter: impl FnOnce(&mut Waiting) -> Option<Waiter>) -> Result<(), Fault> {
        let mut waiting = self.waiting.lock();
        if let Some(reason) = &waiting.gone {
            return Err(Fault::Gone(reason.clone()));
        }
        let _nobody = enter(&mut waiting);
        Ok(())
    }

    fn ask(&self, order: &Order) -> Result<(), Fault> {
        self.send(order).map_err(|_| self.gone())
    }

    fn gone(&self) -> Fault {
        let waiting = self.waiting.lock();
        let reason = waiting.gone.as_deref().unwrap_or("its process has ended");
        Fault::Gone(reason.to_owned())
    }

    /// Hands out what the child says until it is gone; returns how it ended.
    pub(crate) fn listen(&self, reports: &mut Reports) -> String {
        while let Ok(Some(report)) = wire::receive(&mut reports.0) {
            let mut waiting = self.waiting.lock();
            let (waiter, answer) = match report {
                Report::LaneOpen { lane } => (waiting.lanes.remove(&lane), Ok(Answer::LaneOpen)),
                Report::NoLane { lane, fault } => (waiting.lanes.remove(&lane), Err(fault)),
                Report::Done { call, result } => {
                    (waiting.calls.remove(&call), result.map(Answer::Outputs))
                }
                Report::Loaded(_) | Report::NotLoaded(_) => continue,
            };
            if let Some(waiter) = waiter {
                // Whoever asked waits until it is answered.
                let _left = waiter.try_send(answer);
            }
        }
        let reason = format!("its process {}", self.end());
        let mut waiting = self.waiting.lock();
        waiting.gone = Some(reason.clone());
        let (lanes, calls) = (waiting.lanes.drain(), HashMap::new());
        let left: Vec<Waiter> = lanes.map(|(_, waiter)| waiter).collect();
        let calls = std::mem::replace(&mut waiting.calls, calls);
        drop(waiting);
        for waiter in left.into_iter().chain(calls.into_values()) {
            let _left = waiter.try_send(Err(Fault::Gone(reason.clone())));
        }
        reason
    }

    /// Asks for nothing: the memory is wanted back.
    pub(crate) fn kill(&self) {
        if let Err(error) = self.child.lock().kill() {
            tracing::debug!(%error, "the process had ended");
        }
    }

    /// How the child ended; it is ended if it has not.
    fn end(&self) -> String {
        let mut child = self.child.lock();
        // Its socket is closed, so it can be of no use.
        let _ended_already = child.kill();
        match child.wait() {
            Ok(status) => words(status),
            Err(error) => format!("cannot be waited for: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _status = self.end();
    }
}

/// The child's side of the conversation, for the one who listens.
#[derive(Debug)]
pub(crate) struct Reports(BufReader<UnixStream>);

fn words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("ended by signal {signal}{}", known(signal)),
        (None, Some(code)) => format!("ended with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn known(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL, perhaps for want of memory)",
        11 => " (SIGSEGV)",
        _ => "",
    }
}
