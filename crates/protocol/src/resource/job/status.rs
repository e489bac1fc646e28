//! What has become of a job, in Kueue's words.

use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{API_VERSION, Job, JobSpec, Metadata, Timestamp};

/// Reasons in use, of states and conditions alike. Those before the gap are Kueue's.
pub mod reason {
    /// It is in the queue.
    pub const WAITING: &str = "Pending";
    pub const WAITING_FOR_QUOTA: &str = "WaitingForQuota";
    pub const NO_MATCHING_FLAVOR: &str = "NoMatchingFlavor";
    pub const QUOTA_RESERVED: &str = "QuotaReserved";
    pub const ADMITTED: &str = "Admitted";
    pub const PODS_READY: &str = "PodsReady";
    pub const PREEMPTED: &str = "Preempted";
    pub const SUCCEEDED: &str = "Succeeded";
    pub const FAILED: &str = "Failed";
    /// It held more memory than it asked for; Kubernetes' word.
    pub const OUT_OF_MEMORY: &str = "OOMKilled";
    /// `timeoutSeconds` was over.
    pub const TIMED_OUT: &str = "MaximumExecutionTimeExceeded";
    /// Somebody asked for its end.
    pub const CANCELLED: &str = "Deactivated";
    pub const REQUEUED: &str = "Requeued";

    /// It goes on after a failure, or after this node's end.
    pub const RESTARTED: &str = "Restarted";
    /// It has failed more often than `restart.limit` allows.
    pub const RESTART_LIMIT: &str = "RestartLimitExceeded";
    /// Whoever ran it stopped before it ended.
    pub const NODE_STOPPED: &str = "NodeStopped";
    /// It could not be started at all.
    pub const CANNOT_START: &str = "CannotStart";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum JobState {
    /// It waits for its place.
    Queued,
    /// It has its place, and is being started.
    Starting,
    /// All of its processes run; its model answers.
    Running,
    /// It has been asked to end.
    Stopping,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobState {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobStatus {
    /// Names this job and no other, of all that there have been; a legal name itself.
    pub id: String,
    pub state: JobState,
    /// One word (see [`reason`]), and a sentence.
    pub reason: String,
    pub message: String,
    pub submitted_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub conditions: Vec<Condition>,
    /// Starts so far.
    pub attempts: u32,
    /// Starts after failures, of which `restart.limit` allows so many.
    pub restarts: u32,
    /// Times it had to make room for others.
    pub preemptions: u32,
    /// Where it is, or was last.
    pub placements: Vec<JobPlacement>,
    /// How its last process ended.
    pub end: Option<JobEnd>,
    /// Where its model answers: below it are `/v2/models/NAME` and `/v1`.
    pub endpoint: Option<String>,
}

/// One member's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobPlacement {
    pub node: String,
    pub region: String,
    /// Indices on the node.
    pub gpus: Vec<u8>,
}

/// How a process ended: one of the two, or neither when nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobEnd {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: ConditionType,
    pub status: ConditionStatus,
    pub reason: String,
    pub message: String,
    pub last_transition_time: Timestamp,
}

/// Kueue's conditions of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ConditionType {
    QuotaReserved,
    Admitted,
    PodsReady,
    Preempted,
    Evicted,
    Requeued,
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl JobStatus {
    pub fn new(id: String, now: Timestamp) -> Self {
        Self {
            id,
            state: JobState::Queued,
            reason: reason::WAITING.to_owned(),
            message: "it waits for its place".to_owned(),
            submitted_at: now,
            started_at: None,
            finished_at: None,
            conditions: Vec::new(),
            attempts: 0,
            restarts: 0,
            preemptions: 0,
            placements: Vec::new(),
            end: None,
            endpoint: None,
        }
    }

    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|known| known.kind == kind)
    }

    /// Whether a condition holds.
    pub fn holds(&self, kind: ConditionType) -> bool {
        self.condition(kind)
            .is_some_and(|known| known.status == ConditionStatus::True)
    }

    /// Sets a condition. Its time moves only when its status does, as Kubernetes has it.
    pub fn set(
        &mut self,
        kind: ConditionType,
        holds: bool,
        (reason, message): (&str, &str),
        now: Timestamp,
    ) {
        let status = if holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        let next = Condition {
            kind,
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: now,
        };
        match self.conditions.iter_mut().find(|known| known.kind == kind) {
            Some(known) if known.status == status => {
                let since = known.last_transition_time;
                *known = next;
                known.last_transition_time = since;
            }
            Some(known) => *known = next,
            None => self.conditions.push(next),
        }
    }
}

impl Serialize for Job {
    /// As Kubernetes shows a resource: the manifest and its `status`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Job", 5)?;
        document.serialize_field("apiVersion", API_VERSION)?;
        document.serialize_field("kind", "Job")?;
        document.serialize_field("metadata", &self.metadata)?;
        document.serialize_field("spec", &self.spec)?;
        document.serialize_field("status", &self.status)?;
        document.end()
    }
}

impl<'de> Deserialize<'de> for Job {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Document {
            metadata: Metadata,
            spec: JobSpec,
            status: JobStatus,
        }
        let Document {
            metadata,
            spec,
            status,
        } = Document::deserialize(deserializer)?;
        Ok(Self {
            metadata,
            spec,
            status,
        })
    }
}
