//! What somebody wants run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::qos::Level;
use super::refused::Refused;
use crate::mig;
use crate::request::{MILLI, Request};

/// Given by whoever keeps the jobs; never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which goes first, and who is never stopped for whom.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Takes what is left; may make room for `Realtime`.
    #[default]
    CostOptimized,
    /// Somebody waits for it. Never stopped for `CostOptimized`.
    Realtime,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Region {
    #[default]
    Anywhere,
    /// There if it can start there now, else anywhere.
    Preferred(String),
    Required(String),
}

/// All members start together, or none does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Job {
    pub id: JobId,
    #[serde(default)]
    pub tenant: String,
    /// What each member needs.
    pub request: Request,
    /// How many members.
    #[serde(default = "one")]
    pub gang: u32,
    #[serde(default)]
    pub priority: Priority,
    #[serde(default)]
    pub qos: Level,
    #[serde(default)]
    pub region: Region,
    /// Of each GPU that a member uses; 0 for as much as its share of the GPU.
    #[serde(default)]
    pub device_memory_mib: u32,
    /// When it must be done, in the time that [`Queue`](super::Queue) is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// How long it will run from its start, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// May be stopped for a job that matters more, and started again later.
    #[serde(default)]
    pub preemptible: bool,
    /// It saves its work so often; never when `None`: then all is lost when it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

/// Members of one job: each is a process somewhere.
pub(super) const GANG_MAX: u32 = 4_096;

impl Job {
    /// One member that runs whenever there is room.
    pub fn new(id: u64, request: Request) -> Self {
        Self {
            id: JobId(id),
            tenant: String::new(),
            request,
            gang: 1,
            priority: Priority::default(),
            qos: Level::default(),
            region: Region::default(),
            device_memory_mib: 0,
            deadline_ms: None,
            expected_ms: None,
            preemptible: false,
            checkpoint_ms: None,
        }
    }

    pub fn validate(&self) -> Result<(), Refused> {
        let wrong = |field, problem: &str| {
            Err(Refused::Field {
                job: self.id,
                field,
                problem: problem.to_owned(),
            })
        };
        let request = &self.request;
        if self.gang == 0 || self.gang > GANG_MAX {
            return wrong("gang", "is 1 to 4096");
        }
        if request.gpus > 0 && !(1..=MILLI).contains(&request.gpu_milli) {
            return wrong("request.gpuMilli", "is 1 to 1000 when GPUs are asked for");
        }
        if request.gpus > 1 && request.gpu_milli < MILLI {
            return wrong(
                "request.gpuMilli",
                "is 1000 when more than one GPU is asked for",
            );
        }
        if let Some(profile) = &request.mig {
            if !mig::known().contains(&profile.as_str()) {
                let known = mig::known().join(", ");
                return wrong("request.mig", &format!("is one of {known}"));
            }
            if request.gpus != 1 || request.gpu_milli != MILLI {
                return wrong(
                    "request.gpus",
                    "is 1, and `gpuMilli` 1000, with a MIG profile",
                );
            }
        }
        if request.gpus == 0 && self.device_memory_mib > 0 {
            return wrong("deviceMemoryMib", "is 0 without a GPU");
        }
        if self.expected_ms == Some(0) {
            return wrong("expectedMs", "is above 0");
        }
        if self.checkpoint_ms == Some(0) {
            return wrong("checkpointMs", "is above 0");
        }
        if matches!(&self.region, Region::Preferred(name) | Region::Required(name) if name.is_empty())
        {
            return wrong("region", "has a name");
        }
        Ok(())
    }

    /// Thousandths of GPUs, of all members together, as asked for.
    pub fn gpu_milli(&self) -> u64 {
        u64::from(self.gang) * u64::from(self.request.total_gpu_milli())
    }
}
