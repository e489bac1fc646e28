//! Where jobs run. An executor is written knowing this file alone.
//!
//! An executor brings nodes and runs what it is told to run on them; it never decides what runs, when, or whether again.
//! One attempt of one job is a *run*. Everything that happens to a run is told through [`Events`], in order:
//!
//! ```text
//! start ─► Starting* ─► Ready ─► Ended
//!              └───────────────────▲   (it never became ready)
//! ```
//!
//! `Ended` comes exactly once for each run that was started, whatever happens, and only when nothing is left of it: its
//! place is then given to others.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::ApiError;
use protocol::resource::{Job, JobEnd, JobPlacement, JobSpec};
use scheduler::Node;
use tokio::sync::mpsc;

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// One attempt of one job; the first is 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    /// The job's id.
    pub job: String,
    pub attempt: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.attempt)
    }
}

/// What is to run, and where.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: RunId,
    pub job: Arc<Job>,
    /// One for each member of the gang; all of them on nodes of this executor.
    pub placements: Vec<JobPlacement>,
}

/// What an executor tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// All nodes as they are now, also those without change.
    Nodes(Vec<Node>),
    Run(RunId, Progress),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Not ready yet, and why: an image is pulled, a model is loaded.
    Starting(String),
    /// All members run; a model answers at `endpoint` (a URL; below it are `/v2` and `/v1`).
    Ready { endpoint: Option<String> },
    /// Nothing is left of it.
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub how: How,
    /// How its process ended; the first failed member's of a gang.
    pub end: Option<JobEnd>,
    /// One line for people: what is known of the reason.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// All members ended well.
    Succeeded,
    /// A member ended otherwise; the rest have been stopped.
    Failed,
    /// A member held more memory than it asked for; all have been stopped.
    OutOfMemory,
    /// It could not be started; another attempt in the same place would go the same way.
    CannotStart,
    /// It was told to stop, and has.
    Stopped,
    /// Whoever ran it is gone, and it with that.
    Lost,
}

/// The way to whoever started the runs. Bounded: an executor waits while nobody listens.
pub type Events = mpsc::Sender<Event>;

pub trait Executor: Send + Sync + fmt::Debug + 'static {
    /// For the log, and for `kapok jobs`: `local`, `kubernetes`.
    fn name(&self) -> &'static str;

    /// Called once, before anything else. The executor sends its nodes at once and whenever they change. `known` are the
    /// runs that had not ended when kapok last stopped, of all executors: of those whose first place is a node of its own,
    /// the executor goes on watching the ones that go on, and tells [`How::Lost`] of the others.
    fn watch(&self, known: Vec<Run>, events: Events) -> Answer<'_, ()>;

    /// Whether it could ever run this, as far as that can be told before; the error is for whoever submits it.
    fn check<'a>(&'a self, _spec: &'a JobSpec) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Begins a run and returns; how it goes is told by events. All members start, or none. Starting what has been started
    /// does nothing. An error is the same as [`How::CannotStart`].
    fn start(&self, run: Run) -> Answer<'_, ()>;

    /// Asks every member to end, makes it after `grace`, and returns without waiting for that. Stopping what is not there
    /// does nothing.
    fn stop(&self, run: &RunId, grace: Duration) -> Answer<'_, ()>;

    /// What a job has printed, of all its runs that are remembered, oldest first.
    fn logs(&self, job: &str, query: LogQuery) -> Answer<'_, Box<dyn LogStream>>;

    /// Called when a job is forgotten: what it printed may go.
    fn forget(&self, job: &str) -> Answer<'_, ()>;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only so many of the last lines.
    pub tail: Option<usize>,
    /// Goes on with what is printed from now on, until the run ends.
    pub follow: bool,
}

/// What is printed, in pieces that may cut lines. Dropping it stops it.
pub trait LogStream: Send {
    /// The next piece; none at the end. Cancel-safe.
    fn next(&mut self) -> Answer<'_, Option<Bytes>>;
}
