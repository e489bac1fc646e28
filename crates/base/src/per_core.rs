use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Which of the threads of [`PerCore`] this is; 0 on all others. For tables that have one part per core.
pub fn shard() -> usize {
    SHARD.get()
}

/// Threads that each run the tasks given to them and no others: a task never changes its core, and an event wakes nobody
/// but the thread that waits for it. Dropping the last clone ends them, with what still runs there.
#[derive(Debug, Clone)]
pub struct PerCore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handles: Vec<Handle>,
    turn: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl PerCore {
    pub fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let mut handles = Vec::with_capacity(threads.get());
        for shard in 0..threads.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let mut stopped = stop.subscribe();
            std::thread::Builder::new()
                .name(format!("kapok-core-{shard}"))
                .spawn(move || {
                    SHARD.set(shard);
                    // An error means that the sender is gone, which says the same.
                    let _stopped = runtime.block_on(stopped.wait_for(|stop| *stop)).is_ok();
                    runtime.shutdown_background();
                })?;
        }
        Ok(Self(Arc::new(Shared {
            handles,
            turn: AtomicUsize::new(0),
            stop,
        })))
    }

    /// The threads by turns.
    pub fn next(&self) -> Option<&Handle> {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        self.0.handles.get(turn % self.0.handles.len().max(1))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_stay_where_they_were_put() {
        let cores = PerCore::start(NonZeroUsize::new(3).expect("three")).expect("threads");
        let mut shards = Vec::new();
        for _ in 0..6 {
            let handle = cores.next().expect("a thread").clone();
            let seen = async {
                let before = shard();
                tokio::task::yield_now().await;
                (before, shard())
            };
            let (done, answer) = std::sync::mpsc::sync_channel(1);
            handle.spawn(async move { done.send(seen.await).expect("the test waits") });
            let (before, after) = answer.recv().expect("an answer");
            assert_eq!(before, after);
            shards.push(after);
        }
        assert_eq!(shards, [0, 1, 2, 0, 1, 2]);
        assert_eq!(shard(), 0);
    }
}
