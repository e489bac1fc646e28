//! What is to be done now, and why; why a job waits. Reasons have the names that Kueue gives them, where it has one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::job::JobId;

/// Where one member of a job runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub node: String,
    /// Indices on the node, ascending.
    pub gpus: Vec<u8>,
    /// The first memory slice of the MIG instance, when one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_slice: Option<u8>,
    /// Reserved of each of them.
    pub gpu_milli: u16,
    /// Reserved of the memory of each of them; 0 where the device's memory is not known.
    pub memory_mib: u32,
}

/// To be done in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum Action {
    /// Start all members; `places` has one for each. Answered by [`finish`](super::Queue::finish) in the end.
    Start {
        job: JobId,
        /// Counts from 1.
        attempt: u32,
        places: Vec<Place>,
        reason: Admission,
    },
    /// Stop all members. Answered by [`stopped`](super::Queue::stopped); until then their places stay theirs.
    Stop { job: JobId, reason: Eviction },
    /// Start one member elsewhere, then stop it where it was. Answered by [`moved`](super::Queue::moved).
    Move {
        job: JobId,
        /// Index into the job's places.
        member: u32,
        to: Place,
        reason: Eviction,
    },
}

impl Action {
    pub fn job(&self) -> JobId {
        match self {
            Self::Start { job, .. } | Self::Stop { job, .. } | Self::Move { job, .. } => *job,
        }
    }
}

/// Why a job may start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Admission {
    /// Within its tenant's quota, in its turn.
    QuotaReserved,
    /// With what other tenants do not use of theirs.
    Borrowing,
    /// Before others that have been waiting for longer, without delaying the one at the head.
    Backfilled { head: JobId },
    /// Others were stopped for it.
    Preempting { stopped: Vec<JobId> },
    /// Others were moved for it.
    Defragmenting,
}

/// Why a job must stop or move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Eviction {
    /// For a job that matters more.
    Preempted { by: JobId, how: Preemption },
    /// Somebody does not want it any more.
    Deactivated,
    /// A node is gone.
    NodeFailures { node: String },
    /// So that a job fits which needs more in one place.
    Defragmented { by: JobId },
}

/// Kueue's reasons for pre-emption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preemption {
    /// The other matters more: priority, then QoS level.
    Prioritization,
    /// The other's tenant takes back what this one's tenant has borrowed.
    InCohortReclamation,
}

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Wait {
    /// It came after the last step.
    Pending,
    /// Its tenant uses all it may at the moment.
    WaitingForQuota { resource: Resource },
    /// It asks for more than its tenant may ever use.
    ExceedsMaxQuota { resource: Resource },
    /// No node could take a member even if nothing ran.
    NoMatchingFlavor,
    /// Not all members fit at the moment; so many do.
    TopologyPlacementFailed { fit: u32 },
    /// There is room, which is kept for a job at the head.
    Reserved { head: JobId },
    /// Places are chosen; these jobs are being stopped there.
    WaitingForPreemptedPods { jobs: Vec<JobId> },
}

/// What quotas are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resource {
    Cpu,
    Memory,
    Gpu,
}

impl Admission {
    /// Kueue's, or one in its style.
    pub fn word(&self) -> &'static str {
        match self {
            Self::QuotaReserved => "QuotaReserved",
            Self::Borrowing => "Borrowing",
            Self::Backfilled { .. } => "Backfilled",
            Self::Preempting { .. } => "Preempting",
            Self::Defragmenting => "Defragmenting",
        }
    }
}

impl Eviction {
    /// Kueue's, or one in its style.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Preempted { .. } => "Preempted",
            Self::Deactivated => "Deactivated",
            Self::NodeFailures { .. } => "NodeFailures",
            Self::Defragmented { .. } => "Defragmented",
        }
    }
}

impl Wait {
    /// Kueue's, or one in its style.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::WaitingForQuota { .. } => "WaitingForQuota",
            Self::ExceedsMaxQuota { .. } => "ExceedsMaxQuota",
            Self::NoMatchingFlavor => "NoMatchingFlavor",
            Self::TopologyPlacementFailed { .. } => "TopologyPlacementFailed",
            Self::Reserved { .. } => "Reserved",
            Self::WaitingForPreemptedPods { .. } => "WaitingForPreemptedPods",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Gpu => "GPU",
        })
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QuotaReserved => formatter.write_str("within its tenant's quota, in its turn"),
            Self::Borrowing => formatter.write_str("with what other tenants leave unused"),
            Self::Backfilled { head } => {
                write!(formatter, "fits beside job {head}, which is at the head")
            }
            Self::Preempting { stopped } => {
                write!(formatter, "{} jobs were stopped for it", stopped.len())
            }
            Self::Defragmenting => formatter.write_str("others were moved for it"),
        }
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preempted {
                by,
                how: Preemption::Prioritization,
            } => write!(formatter, "job {by} matters more"),
            Self::Preempted {
                by,
                how: Preemption::InCohortReclamation,
            } => write!(formatter, "the tenant of job {by} takes back its quota"),
            Self::Deactivated => formatter.write_str("it was cancelled"),
            Self::NodeFailures { node } => write!(formatter, "node `{node}` is gone"),
            Self::Defragmented { by } => {
                write!(formatter, "job {by} needs the room in one place")
            }
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => formatter.write_str("it has just come"),
            Self::WaitingForQuota { resource } => {
                write!(formatter, "its tenant uses all the {resource} it may now")
            }
            Self::ExceedsMaxQuota { resource } => {
                write!(
                    formatter,
                    "it asks for more {resource} than its tenant may ever use"
                )
            }
            Self::NoMatchingFlavor => formatter.write_str("no node could ever take it"),
            Self::TopologyPlacementFailed { fit } => {
                write!(formatter, "{fit} of its members fit now")
            }
            Self::Reserved { head } => {
                write!(formatter, "the room is kept for job {head}")
            }
            Self::WaitingForPreemptedPods { jobs } => {
                write!(formatter, "{} jobs are being stopped for it", jobs.len())
            }
        }
    }
}
