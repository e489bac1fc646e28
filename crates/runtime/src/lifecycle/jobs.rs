//! Work on models: in the order it came, never two pieces on one model, on as many threads as cores, which end when
//! there is nothing to do.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use protocol::LoadRequest;
use tokio::sync::oneshot;

use crate::catalogue::Entry;
use crate::model::Model;
use crate::runtime::Inner;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) model: String,
    pub(crate) task: Task,
    pub(crate) done: Option<Done>,
}

#[derive(Debug)]
pub(crate) enum Task {
    /// Load it for the first time.
    Start,
    /// Read what its folder says, and load it when somebody asks.
    Register,
    /// The folder has changed, appeared or gone.
    Follow,
    /// A request waits for this one, whatever its name means by then.
    Wake(Arc<Entry>),
    /// A client asks, perhaps with a configuration and files of its own.
    Load(Box<LoadRequest>),
    Unload,
    /// Back to what served before. `judged`: only if this model still serves.
    RollBack {
        why: String,
        judged: Option<Weak<Model>>,
    },
    /// What served before has been kept long enough.
    Forget,
    /// Nobody has asked for it for its `idle_s`.
    Sleep,
}

/// Who is told that a job has ended.
#[derive(Debug)]
pub(crate) enum Done {
    Told(oneshot::Sender<Result<(), String>>),
    /// One of those that [`crate::Runtime::loaded`] waits for.
    Counted(Weak<Inner>),
}

#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<State>);

/// Bounded by its sources: one job a model from the disk, one from its requests, and the clients' own connections.
#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    busy: BTreeSet<String>,
    threads: usize,
}

impl Done {
    fn tell(self, outcome: Result<(), String>) {
        match self {
            Self::Told(done) => {
                // Whoever asked may have gone; the work is done all the same.
                let _gone = done.send(outcome);
            }
            Self::Counted(inner) => {
                if let Some(inner) = inner.upgrade() {
                    inner.loading.send_modify(|jobs| *jobs -= 1);
                }
            }
        }
    }
}

impl Job {
    /// Nobody is left to do it, and who waits is told.
    fn give_up(self, inner: &Inner, reason: &str) {
        let outcome = Err(reason.to_owned());
        for entry in self.waited_for(inner) {
            super::load::tell_waiting(&entry, &outcome);
        }
        if let Some(done) = self.done {
            done.tell(outcome);
        }
    }

    /// What requests may wait for until this job has ended.
    fn waited_for(&self, inner: &Inner) -> Vec<Arc<Entry>> {
        let named = inner.catalogue.get(&self.model).ok();
        match &self.task {
            Task::Wake(entry) => named.into_iter().chain([Arc::clone(entry)]).collect(),
            _ => named.into_iter().collect(),
        }
    }
}

impl Jobs {
    pub(crate) fn submit(inner: &Arc<Inner>, job: Job) {
        let mut state = inner.jobs.0.lock();
        // Asked for again at every look at the clock or the disk: once is enough.
        let repeated = matches!(job.task, Task::Forget | Task::Sleep | Task::Follow);
        let kind = std::mem::discriminant(&job.task);
        let same =
            |other: &Job| other.model == job.model && std::mem::discriminant(&other.task) == kind;
        if repeated && job.done.is_none() && state.waiting.iter().any(same) {
            return;
        }
        state.waiting.push_back(job);
        if state.threads >= inner.tools.compute.cores() {
            return;
        }
        state.threads += 1;
        let name = format!("loader-{}", state.threads);
        drop(state);
        let worker = Arc::clone(inner);
        let spawned = std::thread::Builder::new()
            .name(name)
            .spawn(move || serve(&worker));
        if let Err(error) = spawned {
            let mut state = inner.jobs.0.lock();
            state.threads -= 1;
            tracing::error!(%error, "cannot start a loader thread");
            if state.threads == 0 {
                let left = std::mem::take(&mut state.waiting);
                drop(state);
                for job in left {
                    job.give_up(inner, "no thread can be started that would load it");
                }
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.0.lock();
        let free = |job: &Job| !state.busy.contains(&job.model);
        let place = state.waiting.iter().position(free);
        let job = place.and_then(|place| state.waiting.remove(place));
        match &job {
            Some(job) => {
                state.busy.insert(job.model.clone());
            }
            // What waits is for models at work; whoever works on them comes back here.
            None => state.threads -= 1,
        }
        job
    }

    fn finished(&self, model: &str) {
        self.0.lock().busy.remove(model);
    }
}

fn serve(inner: &Arc<Inner>) {
    while let Some(job) = inner.jobs.next() {
        // The job may take it out of the catalogue.
        let before = job.waited_for(inner);
        let Job { model, task, done } = job;
        let stopping = inner.tasks.stopping();
        // A model that makes us panic is a model that does not load; the others still do.
        let outcome = if stopping {
            Err("the node is stopping".to_owned())
        } else {
            catch_unwind(AssertUnwindSafe(|| super::load::run(inner, &model, task)))
                .unwrap_or_else(|_| Err(super::load::panicked(inner, &model)))
        };
        // Whatever was published, ensembles may have gained or lost a member.
        crate::ensemble::settle(&inner.catalogue);
        for entry in before.into_iter().chain(inner.catalogue.get(&model)) {
            super::load::tell_waiting(&entry, &outcome);
        }
        inner.jobs.finished(&model);
        if let Some(done) = done {
            done.tell(outcome);
        }
    }
}
