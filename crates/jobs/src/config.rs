use std::time::Duration;

use protocol::resource::JobsSpec;

/// The bounds of jobs, and their pace.
#[derive(Debug, Clone)]
pub struct Config {
    /// Jobs that wait; one more is refused.
    pub queue_max: usize,
    /// Finished jobs that are remembered.
    pub history_max: usize,
    /// First and longest wait before a restart.
    pub restart: (Duration, Duration),
    /// How often the queue is asked while jobs wait and nothing happens: deadlines come nearer by themselves.
    pub step: Duration,
}

impl From<&JobsSpec> for Config {
    fn from(spec: &JobsSpec) -> Self {
        Self {
            queue_max: spec.queue_max,
            history_max: spec.history_max,
            // Kubernetes waits 10 s before a Job's first retry; a laptop's user does not.
            restart: (Duration::from_millis(500), Duration::from_secs(60)),
            step: Duration::from_secs(1),
        }
    }
}
