//! The process's compute threads: as many as the core budget, fed by one bounded queue in arrival order.
//!
//! Work says how many cores it keeps busy (an engine may use several per call), so that what runs at one moment never
//! needs more than the budget, whatever is loaded.
//!
//! Of the threads that wait, the one that worked last is woken first: a lone caller's calls then stay on one core, whose
//! caches know the model.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Work waiting for a thread. Calls hold a lane while they wait and lanes are few; this bounds the rest (tokenising).
const QUEUE_MAX: usize = 4096;

/// Threads that the process has at most beside these and the async workers, for callers who keep theirs.
const BESIDE_MAX: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

/// Cheap to clone; the threads end when the last clone is gone and the queue is empty.
#[derive(Debug, Clone)]
pub(crate) struct ComputePool(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

struct Shared {
    cores: usize,
    state: Mutex<State>,
    /// One a thread.
    wake: Vec<Condvar>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    busy: usize,
    /// How many work beside the pool's threads on a thread that somebody had to stand in for.
    beside: usize,
    /// Threads that wait, by number; the last one has worked last.
    idle: Vec<usize>,
    stopping: bool,
}

struct Job {
    cores: usize,
    work: Work,
}

/// Cores that are busy outside the pool's threads, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    shared: Arc<Shared>,
    cores: usize,
    beside: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.busy -= self.cores;
        state.beside -= usize::from(self.beside);
        // What waits may have waited for these.
        let waiting = !state.queue.is_empty();
        let idle = waiting.then(|| state.idle.pop()).flatten();
        drop(state);
        self.shared.wake(idle);
    }
}

/// Why work gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue has no place.
    Full,
    /// The work panicked.
    Panicked,
}

impl ComputePool {
    /// Starts `cores` threads, named `compute-0` and so on.
    pub(crate) fn start(cores: usize) -> std::io::Result<Self> {
        let cores = cores.max(1);
        let shared = Arc::new(Shared {
            cores,
            state: Mutex::default(),
            wake: (0..cores).map(|_| Condvar::new()).collect(),
        });
        // Made first, so that threads started before a failure end again.
        let pool = Self(Arc::new(Owner {
            shared: Arc::clone(&shared),
        }));
        for index in 0..cores {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || shared.serve(index))?;
        }
        Ok(pool)
    }

    /// Threads, which is also the budget.
    pub(crate) fn cores(&self) -> usize {
        self.0.shared.cores
    }

    /// Queues work that keeps `cores` cores busy while it runs.
    pub(crate) fn submit(
        &self,
        cores: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Refused> {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        if state.queue.len() >= QUEUE_MAX {
            return Err(Refused::Full);
        }
        state.queue.push_back(Job {
            cores: cores.clamp(1, shared.cores),
            work: Box::new(work),
        });
        let idle = state.idle.pop();
        drop(state);
        shared.wake(idle);
        Ok(())
    }

    /// Cores for work that runs where it is, if so many are free and nobody waits for them.
    pub(crate) fn take(&self, cores: usize) -> Option<Taken> {
        self.taken(cores, false)
    }

    /// As [`Self::take`], for work that takes long enough for its thread to be missed. Each costs the process a thread that
    /// stands in, so there are few.
    pub(crate) fn take_beside(&self, cores: usize) -> Option<Taken> {
        self.taken(cores, true)
    }

    fn taken(&self, cores: usize, beside: bool) -> Option<Taken> {
        let shared = &self.0.shared;
        let cores = cores.clamp(1, shared.cores);
        let mut state = shared.state.lock();
        let free = shared.cores - state.busy;
        let may = !beside || state.beside < BESIDE_MAX.min(shared.cores.div_ceil(2));
        (may && state.queue.is_empty() && cores <= free).then(|| {
            state.busy += cores;
            state.beside += usize::from(beside);
            Taken {
                shared: Arc::clone(shared),
                cores,
                beside,
            }
        })
    }

    /// Runs work on one core and waits for its result. When the caller goes away first, the work is skipped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (answer, result) = oneshot::channel();
        self.submit(1, move || {
            if !answer.is_closed() {
                // The caller may leave while the work runs; then nobody misses the result.
                let _gone = answer.send(work());
            }
        })?;
        result.await.map_err(|_| Refused::Panicked)
    }

    /// As [`Self::run`], for loader threads: blocks the calling thread.
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        cores: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (answer, result) = oneshot::channel();
        self.submit(cores, move || {
            let _gone = answer.send(work());
        })?;
        result.blocking_recv().map_err(|_| Refused::Panicked)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        self.shared.wake(state.idle.drain(..));
    }
}

impl Shared {
    /// Wakes threads that were taken off the list.
    fn wake(&self, threads: impl IntoIterator<Item = usize>) {
        for thread in threads {
            self.wake[thread].notify_one();
        }
    }

    fn serve(&self, thread: usize) {
        let mut state = self.state.lock();
        loop {
            let free = self.cores - state.busy;
            let fits = |job: &mut Job| job.cores <= free;
            let Some(job) = state.queue.pop_front_if(fits) else {
                if state.stopping && state.queue.is_empty() {
                    // Who waited for the last job to fit has slept through the end.
                    self.wake(state.idle.drain(..));
                    return;
                }
                state.idle.push(thread);
                // Whoever wakes it takes it off the list.
                while state.idle.contains(&thread) {
                    self.wake[thread].wait(&mut state);
                }
                continue;
            };
            state.busy += job.cores;
            // The next one may fit beside this one.
            let beside = !state.queue.is_empty();
            let idle = beside.then(|| state.idle.pop()).flatten();
            drop(state);
            self.wake(idle);
            // Calls catch their own panics to rebuild their lane; this keeps the thread whatever comes.
            if catch_unwind(AssertUnwindSafe(job.work)).is_err() {
                tracing::error!("work on a compute thread panicked");
            }
            state = self.state.lock();
            state.busy -= job.cores;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("cores", &self.cores)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
