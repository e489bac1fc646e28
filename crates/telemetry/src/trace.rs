//! Some requests' times in files of Triton's form, as its trace extension has it.
//!
//! Whether a request is traced is decided when it is asked for; what is written comes from its ledger when it settles. A
//! thread of its own writes, from a bounded queue: a full queue or a failing disk costs traces, never requests.

mod file;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use protocol::oip::settings::{TraceChange, TraceSettings};

use crate::{Ledger, Stage};
use file::Files;
use settings::{Live, Scopes};

/// Traces that wait for the disk; more are dropped and counted.
const WAITING_MAX: usize = 4096;

/// Decides what is traced, and writes it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whether anything may be traced at all: all that most requests look at.
    on: AtomicBool,
    scopes: Mutex<Scopes>,
    ids: AtomicU64,
    dropped: AtomicU64,
    writer: Mutex<Option<Writer>>,
}

#[derive(Debug)]
struct Writer {
    queue: SyncSender<Trace>,
    thread: JoinHandle<()>,
}

/// A request that is traced.
#[derive(Debug)]
pub struct Ticket {
    tracer: Tracer,
    live: Arc<Live>,
    pub model: String,
    /// As it was answered; empty if it was not.
    pub version: String,
    pub request_id: String,
    pub wire: Wire,
}

/// Whose words the first and the last moments have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Http,
    Grpc,
}

/// What is written.
#[derive(Debug)]
struct Trace {
    live: Arc<Live>,
    id: u64,
    model: String,
    version: String,
    request_id: String,
    /// Names and nanoseconds since 1970.
    moments: Vec<(&'static str, u64)>,
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Attempting to set invalid trace setting :{0}")]
pub struct Unusable(&'static str);

impl Tracer {
    /// With the settings of the server's start, which it falls back to.
    pub fn new(settings: TraceSettings) -> Result<Self, Unusable> {
        let scopes = Scopes::new(settings)?;
        Ok(Self(Arc::new(Shared {
            on: AtomicBool::new(scopes.any_on()),
            scopes: Mutex::new(scopes),
            ids: AtomicU64::new(1),
            dropped: AtomicU64::new(0),
            writer: Mutex::default(),
        })))
    }

    /// The settings of a model, or the server's.
    pub fn settings(&self, model: Option<&str>) -> TraceSettings {
        self.0.scopes.lock().live(model).settings()
    }

    /// Changes the settings of a model, or the server's and with them those that models do not have of their own.
    pub fn change(
        &self,
        model: Option<&str>,
        change: TraceChange,
    ) -> Result<TraceSettings, Unusable> {
        let mut scopes = self.0.scopes.lock();
        scopes.change(model, change)?;
        self.0.on.store(scopes.any_on(), Ordering::Relaxed);
        Ok(scopes.live(model).settings())
    }

    /// Whether this request is one to trace.
    pub fn sample(&self, model: &str, wire: Wire) -> Option<Box<Ticket>> {
        if !self.0.on.load(Ordering::Relaxed) {
            return None;
        }
        let live = Arc::clone(self.0.scopes.lock().live(Some(model)));
        live.takes_one().then(|| {
            Box::new(Ticket {
                tracer: self.clone(),
                live,
                model: model.to_owned(),
                version: String::new(),
                request_id: String::new(),
                wire,
            })
        })
    }

    /// Traces that the queue had no room for.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything traced so far is written. The next trace starts anew.
    pub fn flush(&self) {
        let writer = self.0.writer.lock().take();
        if let Some(Writer { queue, thread }) = writer {
            drop(queue);
            let _panicked = thread.join();
        }
    }

    fn push(&self, trace: Trace) {
        let mut writer = self.0.writer.lock();
        if writer.is_none() {
            let (queue, traces) = sync_channel(WAITING_MAX);
            let started = std::thread::Builder::new()
                .name("kapok-trace".to_owned())
                .spawn(move || write(&traces));
            match started {
                Ok(thread) => *writer = Some(Writer { queue, thread }),
                Err(error) => tracing::warn!(%error, "traces cannot be written: no thread"),
            }
        }
        let sent = writer
            .as_ref()
            .is_some_and(|writer| writer.queue.try_send(trace).is_ok());
        if !sent && self.0.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("traces are dropped: they come faster than they are written");
        }
    }
}

fn write(traces: &Receiver<Trace>) {
    let mut files = Files::default();
    while let Ok(first) = traces.recv() {
        files.write(std::iter::once(first).chain(traces.try_iter()));
    }
}

impl Ticket {
    /// The request has settled: what its ledger says is written.
    pub fn settle(self, started: SystemTime, ledger: &Ledger) {
        let moments = moments(self.wire, started, ledger);
        let tracer = self.tracer;
        let id = tracer.0.ids.fetch_add(1, Ordering::Relaxed);
        tracer.push(Trace {
            live: self.live,
            id,
            model: self.model,
            version: self.version,
            request_id: self.request_id,
            moments,
        });
    }
}

/// Triton's moments. A ledger tells how long each stage took; in which order they come is known.
fn moments(wire: Wire, started: SystemTime, ledger: &Ledger) -> Vec<(&'static str, u64)> {
    let (receive, send) = match wire {
        Wire::Http => (
            ["HTTP_RECV_START", "HTTP_RECV_END"],
            ["HTTP_SEND_START", "HTTP_SEND_END"],
        ),
        Wire::Grpc => (
            ["GRPC_WAITREAD_START", "GRPC_WAITREAD_END"],
            ["GRPC_SEND_START", "GRPC_SEND_END"],
        ),
    };
    let steps: [(&str, &[Stage]); 10] = [
        (receive[0], &[]),
        (receive[1], &[Stage::Read]),
        ("REQUEST_START", &[Stage::Parse, Stage::Admit, Stage::Route]),
        ("QUEUE_START", &[]),
        ("COMPUTE_START", &[Stage::Queue]),
        ("COMPUTE_INPUT_END", &[Stage::Input]),
        ("COMPUTE_OUTPUT_START", &[Stage::Infer]),
        ("COMPUTE_END", &[Stage::Output]),
        ("REQUEST_END", &[]),
        ("INFER_RESPONSE_COMPLETE", &[]),
    ];
    let ends: [(&str, &[Stage]); 2] = [
        (send[0], &[Stage::Encode, Stage::Connect, Stage::Upstream]),
        (send[1], &[Stage::Send]),
    ];
    let mut at = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let steps = steps.iter().chain(&ends);
    steps
        .map(|(name, stages)| {
            at += stages
                .iter()
                .map(|stage| ledger.spent(*stage))
                .sum::<Duration>();
            (*name, u64::try_from(at.as_nanos()).unwrap_or(u64::MAX))
        })
        .collect()
}
