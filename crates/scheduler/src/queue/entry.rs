//! What the queue knows of a job, and all that it must remember over a restart.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::action::{Action, Admission, Eviction, Place, Wait};
use super::job::{Job, JobId};
use crate::cluster::Node;
use crate::workload::Workload;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub job: Job,
    /// When it came.
    pub submitted_ms: u64,
    /// Since when it waits; later than it came when it was stopped in between.
    pub since_ms: u64,
    /// How long it waited before its last start.
    pub waited_ms: u64,
    /// Times that it was started.
    pub attempts: u32,
    /// Of what it has to do, so much was done and saved before it was stopped.
    pub saved_ms: u64,
    /// It has places because it had waited past its bound, so others let it go first.
    #[serde(default)]
    pub led: bool,
    pub phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
pub enum Phase {
    /// Kueue's `QuotaReserved` is false.
    Pending {
        /// As of when it was last looked at by itself; [`Queue::wait`](super::Queue::wait) says what holds for all like it.
        wait: Wait,
    },
    /// It has its places, and others that were there are being stopped.
    Reserved {
        places: Vec<Place>,
        waits_for: BTreeSet<JobId>,
        reason: Admission,
    },
    Running {
        places: Vec<Place>,
        since_ms: u64,
        /// When it last said that its work is saved; from then on its own interval counts.
        checkpoint_ms: u64,
        /// Where members were that are being moved, and may still be.
        leaving: Vec<Place>,
    },
    /// It was told to stop, and is not known to have done so.
    Stopping {
        places: Vec<Place>,
        reason: Eviction,
        /// It waits again afterwards.
        again: bool,
    },
}

impl Phase {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Reserved { .. } => "about to start",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
        }
    }

    /// What it has been given.
    pub fn places(&self) -> &[Place] {
        match self {
            Self::Pending { .. } => &[],
            Self::Reserved { places, .. }
            | Self::Running { places, .. }
            | Self::Stopping { places, .. } => places,
        }
    }
}

impl Entry {
    /// What is lost when it is stopped now: thousandths of a GPU (or of a CPU without one) times milliseconds.
    pub fn restart_cost(&self, now_ms: u64) -> u128 {
        let size = match self.job.gpu_milli() {
            0 => u64::from(self.job.request.cpu_milli) * u64::from(self.job.gang),
            milli => milli,
        };
        u128::from(self.unsaved_ms(now_ms)) * u128::from(size.max(1))
    }

    /// Since it last saved its work, or began.
    pub(super) fn unsaved_ms(&self, now_ms: u64) -> u64 {
        let Phase::Running {
            since_ms,
            checkpoint_ms,
            ..
        } = self.phase
        else {
            return 0;
        };
        let elapsed = now_ms.saturating_sub(since_ms.max(checkpoint_ms));
        let interval = self.job.checkpoint_ms;
        interval.map_or(elapsed, |interval| elapsed % interval)
    }

    /// Done and saved if it is stopped now.
    pub(super) fn saved_by(&self, now_ms: u64) -> u64 {
        let Phase::Running {
            since_ms,
            checkpoint_ms,
            ..
        } = self.phase
        else {
            return self.saved_ms;
        };
        let said = checkpoint_ms.saturating_sub(since_ms);
        let since = now_ms.saturating_sub(since_ms.max(checkpoint_ms));
        let own = self
            .job
            .checkpoint_ms
            .map_or(0, |interval| since - since % interval);
        self.saved_ms + said + own
    }

    /// What is left to do from a start on, if known.
    pub fn remaining_ms(&self) -> Option<u64> {
        let expected = self.job.expected_ms?;
        Some(expected.saturating_sub(self.saved_ms).max(1))
    }
}

/// A queue at rest. A queue that is [restored](super::Queue::restore) from it decides as the first would have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Saved {
    /// Of this form.
    pub version: u32,
    pub nodes: Vec<Node>,
    /// In the order of their ids.
    pub entries: Vec<Entry>,
    /// What has come, and what of it the policy knows.
    pub seen: Workload,
    pub planned: Workload,
    pub learns: bool,
    pub arrivals: u64,
    /// Moves of the last hour: when.
    pub moves_ms: Vec<u64>,
    /// Decided, and not yet given out by a step.
    pub actions: Vec<Action>,
}

pub(super) const VERSION: u32 = 1;
