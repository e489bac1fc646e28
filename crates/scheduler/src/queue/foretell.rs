//! Why a job waits, when it will run, and what would make it run now.
//!
//! [`Queue::explain`] for a job that is there, [`Queue::dry_run`] for one that is not: both answer with an [`Explanation`].
//! Reading order: this file (what is said), `blocking` (the smallest set of what is in the way), `instead` (changes that
//! were tried on a copy of the queue before they are told), [`History`] (how long jobs take) and `estimate` (when).

mod blocking;
mod estimate;
mod history;
mod instead;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Queue;
use super::action::{Action, Place};
use super::job::{Job, JobId};
use super::qos::Level;
use super::refused::Refused;

pub use blocking::{Blocking, Constraint};
pub use history::History;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub job: JobId,
    /// `pending`, `about to start`, `running` or `stopping`.
    pub phase: String,
    /// Of one that waits, in Kueue's words: `WaitingForQuota`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Jobs that go first.
    pub ahead: usize,
    /// Without these it would run now, and without fewer of them it would not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocking: Vec<Blocking>,
    /// From now on; none where what is there is not enough even when nothing else runs, or nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Estimate>,
    /// Each of these was tried, and the job ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instead: Vec<Instead>,
    /// Where it runs, or would.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
}

/// Half of all jobs in this situation start by the one, nine of ten by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    pub p50_ms: u64,
    pub p90_ms: u64,
}

/// The job with these changes would start now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instead {
    pub changes: Vec<Change>,
    pub places: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "change"
)]
pub enum Change {
    LessCpu {
        cpu_milli: u32,
    },
    LessMemory {
        memory_mib: u32,
    },
    FewerGpus {
        gpus: u8,
    },
    SmallerShare {
        gpu_milli: u16,
    },
    LessDeviceMemory {
        memory_mib: u32,
    },
    SmallerProfile {
        profile: String,
    },
    AnotherModel {
        model: String,
    },
    AnotherRegion {
        region: String,
    },
    NoLabels,
    SmallerGang {
        gang: u32,
    },
    AnotherQos {
        level: Level,
    },
    /// `priority: realtime`.
    Realtime,
}

impl Queue {
    /// Of a job in any phase; `history` knows how long jobs take.
    pub fn explain(
        &self,
        id: JobId,
        now_ms: u64,
        history: &History,
    ) -> Result<Explanation, Refused> {
        let entry = self.entry(id)?;
        let mut explanation = Explanation {
            job: id,
            phase: entry.phase.word().to_owned(),
            reason: String::new(),
            message: String::new(),
            ahead: 0,
            blocking: Vec::new(),
            starts: None,
            instead: Vec::new(),
            places: entry.phase.places().to_vec(),
        };
        let Some(wait) = self.wait(id) else {
            return Ok(explanation);
        };
        wait.word().clone_into(&mut explanation.reason);
        explanation.message = wait.to_string();
        let order = self.in_order(now_ms);
        let place = order.iter().position(|other| *other == id).unwrap_or(0);
        explanation.ahead = place;
        explanation.blocking = self.blocking(&entry.job);
        let behind = order[place..].iter().copied().collect();
        explanation.instead = self.instead(entry, &explanation.blocking, &behind, now_ms);
        explanation.starts = self.estimate(&order[..=place], now_ms, history);
        Ok(explanation)
    }

    /// What would become of a job that is submitted now; nothing is changed.
    pub fn dry_run(
        &self,
        job: Job,
        now_ms: u64,
        history: &History,
    ) -> Result<Explanation, Refused> {
        let id = job.id;
        let mut copy = Self::restore(self.config().clone(), self.save())?;
        copy.submit(job, now_ms)?;
        copy.step(now_ms);
        copy.explain(id, now_ms, history)
    }
}

/// Of the actions that start this job, the places.
fn started(actions: Vec<Action>, id: JobId) -> Option<Vec<Place>> {
    actions.into_iter().find_map(|action| match action {
        Action::Start { job, places, .. } if job == id => Some(places),
        _ => None,
    })
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "job {}: {}", self.job, self.phase)?;
        let nodes: Vec<_> = self
            .places
            .iter()
            .map(|place| place.node.as_str())
            .collect();
        if !nodes.is_empty() {
            write!(formatter, " on `{}`", nodes.join("`, `"))?;
        }
        if self.reason.is_empty() {
            return Ok(());
        }
        write!(formatter, ", {} ({})", self.reason, self.message)?;
        match self.ahead {
            0 => {}
            1 => write!(formatter, "; 1 job goes first")?,
            ahead => write!(formatter, "; {ahead} jobs go first")?,
        }
        for blocking in &self.blocking {
            write!(formatter, "\n  in the way: {blocking}")?;
        }
        match &self.starts {
            Some(estimate) => write!(
                formatter,
                "\n  starts in about {}, in nine of ten cases within {}",
                Span(estimate.p50_ms),
                Span(estimate.p90_ms)
            )?,
            None => write!(formatter, "\n  it is not known when it starts")?,
        }
        for instead in &self.instead {
            let changes: Vec<_> = instead.changes.iter().map(Change::to_string).collect();
            write!(
                formatter,
                "\n  would start now with {}",
                changes.join(" and ")
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LessCpu { cpu_milli } => write!(formatter, "{cpu_milli} thousandths of a CPU"),
            Self::LessMemory { memory_mib } => write!(formatter, "{memory_mib} MiB of memory"),
            Self::FewerGpus { gpus: 1 } => formatter.write_str("1 GPU"),
            Self::FewerGpus { gpus } => write!(formatter, "{gpus} GPUs"),
            Self::SmallerShare { gpu_milli } => {
                write!(formatter, "{gpu_milli} thousandths of a GPU")
            }
            Self::LessDeviceMemory { memory_mib } => {
                write!(formatter, "{memory_mib} MiB of device memory")
            }
            Self::SmallerProfile { profile } => write!(formatter, "the MIG profile `{profile}`"),
            Self::AnotherModel { model } => write!(formatter, "GPUs of the model `{model}`"),
            Self::AnotherRegion { region } => write!(formatter, "region `{region}`"),
            Self::NoLabels => formatter.write_str("no labels asked for"),
            Self::SmallerGang { gang } => write!(formatter, "{gang} members"),
            Self::AnotherQos { level } => write!(formatter, "QoS level {}", level.number()),
            Self::Realtime => formatter.write_str("priority `realtime`"),
        }
    }
}

/// Milliseconds, as people say it.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_ceil(1_000);
        match seconds {
            0..=119 => write!(formatter, "{seconds} s"),
            120..=7_199 => write!(formatter, "{} min", seconds.div_ceil(60)),
            7_200..=172_799 => write!(formatter, "{} h", seconds.div_ceil(3_600)),
            _ => write!(formatter, "{} days", seconds.div_ceil(86_400)),
        }
    }
}

#[cfg(test)]
mod tests;
