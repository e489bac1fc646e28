//! What the processes of jobs hold of memory: looked at from time to time while there are any.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use base::{TaskKind, Tasks};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Between two looks, each of which costs some 20 µs for every process of the machine. In that time a process can take more
/// than its limit; the kernel's own limits need a cgroup of ours.
const PERIOD: Duration = Duration::from_millis(500);

/// Resident bytes by process group.
type Groups = Arc<BTreeMap<i32, u64>>;

/// One look for all jobs.
#[derive(Debug, Default)]
pub(super) struct Meter {
    groups: watch::Sender<Groups>,
    awake: Mutex<bool>,
}

/// What one process and all that it starts may hold.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    group: i32,
    groups: watch::Receiver<Groups>,
}

impl Meter {
    pub(super) fn limit(self: &Arc<Self>, group: i32, bytes: u64, tasks: &Tasks) -> Limit {
        let mut awake = self.awake.lock();
        let groups = self.groups.subscribe();
        if !*awake {
            *awake = true;
            let (meter, stops) = (Arc::clone(self), tasks.clone());
            tasks.spawn(TaskKind::JobRun, "memory of jobs", async move {
                meter.look(&stops).await;
                Ok(())
            });
        }
        Limit {
            bytes,
            group,
            groups,
        }
    }

    /// Until nobody asks.
    async fn look(&self, tasks: &Tasks) {
        loop {
            let stops = tokio::select! {
                () = sleep(PERIOD) => false,
                () = tasks.stopped() => true,
            };
            {
                let mut awake = self.awake.lock();
                if stops || self.groups.receiver_count() == 0 {
                    *awake = false;
                    return;
                }
            }
            let groups = spawn_blocking(process::memory::resident).await;
            self.groups
                .send_replace(Arc::new(groups.unwrap_or_default()));
        }
    }
}

impl Limit {
    /// Resolves with what the group holds once that is more than it may. Cancel-safe: the next look tells again.
    pub(super) async fn exceeded(&mut self) -> u64 {
        loop {
            if self.groups.changed().await.is_err() {
                pending::<()>().await;
            }
            let groups = Arc::clone(&self.groups.borrow_and_update());
            let held = groups.get(&self.group).copied().unwrap_or_default();
            if held <= self.bytes {
                continue;
            }
            // Children of one process share most of their pages with it.
            let group = self.group;
            let exact = spawn_blocking(move || process::memory::proportional(group)).await;
            let exact = exact.ok().flatten().unwrap_or(held);
            if exact > self.bytes {
                return exact;
            }
        }
    }
}
