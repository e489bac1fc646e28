use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to a task when the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// It is given the drain time to finish.
    Wait,
    /// It is dropped at its next await.
    Abort,
}

/// What happens when a task ends with an error or a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    Log,
    /// The whole node drains and stops: nothing works without this task.
    StopNode,
}

/// Every kind of background work, and how it is supervised: one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Accepts connections on one address.
    Listener,
    /// Serves one client connection.
    Connection,
    /// Drives one connection that we opened and that no request drives itself.
    UpstreamConnection,
    /// Probes one upstream.
    HealthCheck,
    /// Starts, watches and restarts one managed process.
    ManagedProcess,
    /// Brings what the node is told to be into force.
    Configuration,
    /// Asks one source for servers.
    Discovery,
    /// Keeps this node's entry in a registry.
    Registration,
    /// Watches one kind of object of a cluster, or tells what was seen.
    ClusterWatch,
    /// Sends spans or metrics to a collector.
    Export,
    /// Runs what one lane's sequences have waiting; ends when nothing waits.
    Sequences,
    /// Owns the jobs, or stands between them and an executor.
    Jobs,
    /// One run of one job, or one of its members.
    JobRun,
}

impl TaskKind {
    pub fn on_cancel(self) -> OnCancel {
        match self {
            Self::Connection
            | Self::ManagedProcess
            | Self::Registration
            | Self::Export
            | Self::Sequences
            | Self::JobRun => OnCancel::Wait,
            Self::Listener
            | Self::UpstreamConnection
            | Self::HealthCheck
            | Self::Configuration
            | Self::Discovery
            | Self::ClusterWatch
            | Self::Jobs => OnCancel::Abort,
        }
    }

    pub fn on_error(self) -> OnError {
        match self {
            Self::Listener => OnError::StopNode,
            Self::Connection
            | Self::UpstreamConnection
            | Self::HealthCheck
            | Self::ManagedProcess
            | Self::Configuration
            | Self::Discovery
            | Self::ClusterWatch
            | Self::Registration
            | Self::Export
            | Self::Sequences
            | Self::Jobs
            | Self::JobRun => OnError::Log,
        }
    }
}

/// The only place that spawns. Cheap to clone; every clone belongs to the same node.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waited: Mutex<JoinSet<()>>,
    aborted: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            waited: Mutex::new(JoinSet::new()),
            aborted: Mutex::new(JoinSet::new()),
            stop: watch::Sender::new(false),
        }))
    }

    /// Starts supervised work. `name` is for people: it appears in the log when the task fails.
    pub fn spawn<F>(&self, kind: TaskKind, name: impl Into<String>, work: F)
    where
        F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), kind, name, work);
    }

    /// The same, on another runtime's threads.
    pub fn spawn_on<F>(&self, runtime: &Handle, kind: TaskKind, name: impl Into<String>, work: F)
    where
        F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let name = name.into();
        // A future that another one awaits lies in it twice: as what was given, and as what is polled.
        let work = Box::pin(work);
        let stop = self.0.stop.clone();
        let set = match kind.on_cancel() {
            OnCancel::Wait => &self.0.waited,
            OnCancel::Abort => &self.0.aborted,
        };
        let guard = PanicGuard {
            kind,
            stop: stop.clone(),
        };
        let mut set = set.lock();
        // Finished tasks are reaped here, so the sets hold live work plus at most what ended since the last spawn.
        while set.try_join_next().is_some() {}
        let work = async move {
            let guard = guard;
            if let Err(error) = work.await {
                tracing::warn!(
                    task = name,
                    ?kind,
                    error = crate::chain(error.as_ref()),
                    "task failed"
                );
                if kind.on_error() == OnError::StopNode {
                    stop.send_replace(true);
                }
            }
            drop(guard);
        };
        set.spawn_on(work, runtime);
    }

    /// Asks every task to finish.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    pub fn stopping(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Resolves once the node is asked to stop. Cancel-safe.
    pub async fn stopped(&self) {
        let mut stop = self.0.stop.subscribe();
        // The sender lives in self, so this can only end by the value turning true.
        let _closed = stop.wait_for(|stop| *stop).await;
    }

    /// Stops, waits up to `limit` for tasks that are waited for, then drops the rest. True if all of them finished.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.stop();
        let mut waited = std::mem::take(&mut *self.0.waited.lock());
        let finished =
            tokio::time::timeout(limit, async { while waited.join_next().await.is_some() {} })
                .await
                .is_ok();
        waited.abort_all();
        self.0.aborted.lock().abort_all();
        finished
    }
}

/// Stops the node when a task that it cannot live without panics.
struct PanicGuard {
    kind: TaskKind,
    stop: watch::Sender<bool>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(kind = ?self.kind, "task panicked");
            if self.kind.on_error() == OnError::StopNode {
                self.stop.send_replace(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_connections_and_drops_the_rest() {
        let tasks = Tasks::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let waiter = tasks.clone();
        tasks.spawn(TaskKind::Connection, "connection", async move {
            waiter.stopped().await;
            done.send(()).map_err(|()| "nobody waits".into())
        });
        tasks.spawn(TaskKind::HealthCheck, "probe", std::future::pending());
        assert!(tasks.drain(Duration::from_secs(5)).await);
        finished
            .await
            .expect("the connection finished before drain returned");
    }

    #[tokio::test]
    async fn a_failed_listener_stops_the_node_and_a_failed_connection_does_not() {
        let tasks = Tasks::new();
        tasks.spawn(TaskKind::Connection, "connection", async {
            Err("reset".into())
        });
        tokio::task::yield_now().await;
        assert!(!tasks.stopping());
        tasks.spawn(TaskKind::Listener, "listener", async {
            Err("address in use".into())
        });
        tokio::time::timeout(Duration::from_secs(5), tasks.stopped())
            .await
            .expect("the node stops");
    }
}
