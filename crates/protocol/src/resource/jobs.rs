use serde::{Deserialize, Serialize};

use super::kubernetes::{self, KubernetesSpec};
use super::validate::Findings;

/// The node's part in jobs: who may submit them, and how many are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JobsSpec {
    pub control: JobControl,
    /// Jobs that wait; one more is refused.
    pub queue_max: usize,
    /// Finished jobs that are remembered, with what they printed; the oldest goes first.
    pub history_max: usize,
    /// What is kept of what one job prints, in MiB: its beginning is dropped.
    pub log_mb: u64,
    /// The cluster that runs them; absent means this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Box<KubernetesSpec>>,
}

impl Default for JobsSpec {
    fn default() -> Self {
        Self {
            control: JobControl::Auto,
            queue_max: 1000,
            history_max: 1000,
            log_mb: 16,
            kubernetes: None,
        }
    }
}

/// Whether clients may submit jobs: a job runs a program as the user who runs kapok.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobControl {
    /// When the public port is loopback, or a `Key` is needed.
    #[default]
    Auto,
    On,
    Off,
}

pub(super) fn check(spec: &JobsSpec, found: &mut Findings) {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    found.positive(number(spec.queue_max), "spec.jobs.queueMax");
    if let Some(cluster) = &spec.kubernetes {
        kubernetes::check(cluster, found);
    }
    found.positive(spec.log_mb, "spec.jobs.logMb");
    found.check(spec.history_max <= 100_000, "spec.jobs.historyMax", || {
        "at most 100000: all of them are kept in memory".to_owned()
    });
}
