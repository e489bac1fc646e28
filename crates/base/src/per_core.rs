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
    cores: Vec<Core>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Core {
    handle: Handle,
    /// Who has a [`Seat`] here.
    seated: AtomicUsize,
}

/// Somebody's thread. It counts there while this lives.
#[derive(Debug)]
pub struct Seat {
    cores: PerCore,
    core: usize,
}

impl PerCore {
    pub fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let mut cores = Vec::with_capacity(threads.get());
        for shard in 0..threads.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            cores.push(Core {
                handle: runtime.handle().clone(),
                seated: AtomicUsize::new(0),
            });
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
        Ok(Self(Arc::new(Shared { cores, stop })))
    }

    /// The thread that the fewest are on, the first of equals.
    pub fn sit(&self) -> Seat {
        let cores = self.0.cores.iter().enumerate();
        let fewest = cores.min_by_key(|(_, core)| core.seated.load(Ordering::Relaxed));
        let core = fewest.map_or(0, |(index, core)| {
            core.seated.fetch_add(1, Ordering::Relaxed);
            index
        });
        Seat {
            cores: self.clone(),
            core,
        }
    }
}

impl Seat {
    /// None only where there are no threads, which cannot be started.
    pub fn handle(&self) -> Option<&Handle> {
        let core = self.cores.0.cores.get(self.core)?;
        Some(&core.handle)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(core) = self.cores.0.cores.get(self.core) {
            core.seated.fetch_sub(1, Ordering::Relaxed);
        }
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
        let (mut shards, mut seats) = (Vec::new(), Vec::new());
        for place in 0..6 {
            let seat = cores.sit();
            let handle = seat.handle().expect("a thread").clone();
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
            seats.push(seat);
            if place == 3 {
                // Who leaves makes room.
                seats.remove(1);
            }
        }
        assert_eq!(shards, [0, 1, 2, 0, 1, 1]);
        assert_eq!(shard(), 0);
    }
}
