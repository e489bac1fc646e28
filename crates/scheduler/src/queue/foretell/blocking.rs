//! The smallest set of what a job asks for without which it would run now.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::Queue;
use super::super::job::{Job, Region};
use crate::state::{Ask, State};

/// What may be in a job's way. Of sets of the same size, the one that comes first here is named: it is the least to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Constraint {
    Region,
    Labels,
    GpuModel,
    DeviceMemory,
    Gang,
    Cpu,
    Memory,
    MigProfile,
    Gpus,
    Quota,
    /// There is room, and others go first.
    Ahead,
}

/// One of the set, with what is asked and the most that could be had now if the rest of the set did not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocking {
    pub constraint: Constraint,
    pub asked: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible: Option<u64>,
}

const ALL: [Constraint; 10] = [
    Constraint::Region,
    Constraint::Labels,
    Constraint::GpuModel,
    Constraint::DeviceMemory,
    Constraint::Gang,
    Constraint::Cpu,
    Constraint::Memory,
    Constraint::MigProfile,
    Constraint::Gpus,
    Constraint::Quota,
];

impl Constraint {
    /// The job without it; nothing when it does not ask for that.
    pub(super) fn without(self, job: &Job) -> Option<Job> {
        let mut relaxed = job.clone();
        let request = &mut relaxed.request;
        match self {
            Self::Region => {
                relaxed.region = Region::Anywhere;
                request.regions.clear();
            }
            Self::Labels => request.labels.clear(),
            Self::GpuModel => request.models.clear(),
            Self::DeviceMemory => relaxed.device_memory_mib = 0,
            Self::Gang => relaxed.gang = 1,
            Self::Cpu => request.cpu_milli = 0,
            Self::Memory => request.memory_mib = 0,
            Self::MigProfile if request.mig.is_none() => return None,
            Self::Gpus if request.mig.is_some() => return None,
            Self::MigProfile | Self::Gpus => {
                request.mig = None;
                request.gpus = 0;
                request.gpu_milli = 0;
                relaxed.device_memory_mib = 0;
            }
            Self::Quota | Self::Ahead => return Some(relaxed),
        }
        (relaxed != *job).then_some(relaxed)
    }

    fn asked(self, job: &Job) -> String {
        let request = &job.request;
        let join = |names: &std::collections::BTreeSet<String>| {
            names.iter().cloned().collect::<Vec<_>>().join(" or ")
        };
        match self {
            Self::Region => match &job.region {
                Region::Required(region) | Region::Preferred(region) => region.clone(),
                Region::Anywhere => join(&request.regions),
            },
            Self::Labels => {
                let labels = request.labels.iter();
                let labels: Vec<_> = labels
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                labels.join(", ")
            }
            Self::GpuModel => join(&request.models),
            Self::DeviceMemory => format!("{} MiB", job.device_memory_mib),
            Self::Gang => format!("{} members", job.gang),
            Self::Cpu => format!("{} thousandths", request.cpu_milli),
            Self::Memory => format!("{} MiB", request.memory_mib),
            Self::MigProfile => request.mig.clone().unwrap_or_default(),
            Self::Gpus if request.shares() => format!("{} thousandths of one", request.gpu_milli),
            Self::Gpus => request.gpus.to_string(),
            Self::Quota => format!("that of tenant `{}`", job.tenant),
            Self::Ahead => "their turn".to_owned(),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Region => "region",
            Self::Labels => "labels",
            Self::GpuModel => "GPU model",
            Self::DeviceMemory => "device memory",
            Self::Gang => "gang",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::MigProfile => "MIG profile",
            Self::Gpus => "GPUs",
            Self::Quota => "quota",
            Self::Ahead => "jobs that go first",
        })
    }
}

impl fmt::Display for Blocking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}", self.constraint, self.asked)?;
        if let Some(possible) = self.possible {
            write!(formatter, ", {possible} possible now")?;
        }
        formatter.write_str(")")
    }
}

impl Queue {
    pub(super) fn blocking(&self, job: &Job) -> Vec<Blocking> {
        let named = |constraint: Constraint| (constraint, constraint.without(job));
        let asked: Vec<Constraint> = ALL
            .map(named)
            .into_iter()
            .filter(|(_, relaxed)| relaxed.is_some())
            .map(|(constraint, _)| constraint)
            .collect();
        let set = smallest(&asked, |set| self.free_without(job, set));
        let set = if set.is_empty() {
            vec![Constraint::Ahead]
        } else {
            set
        };
        let blocking = set.iter().map(|constraint| Blocking {
            constraint: *constraint,
            asked: constraint.asked(job),
            possible: self.possible(job, &set, *constraint),
        });
        blocking.collect()
    }

    /// There would be room, and the quota, for the job without these.
    fn free_without(&self, job: &Job, set: &[Constraint]) -> bool {
        let mut relaxed = job.clone();
        for constraint in set {
            relaxed = constraint.without(&relaxed).unwrap_or(relaxed);
        }
        let quota = set.contains(&Constraint::Quota)
            || self.usage.obstacle(&relaxed, &self.config).is_none();
        quota && self.members_free(&relaxed) == relaxed.gang
    }

    fn possible(&self, job: &Job, set: &[Constraint], of: Constraint) -> Option<u64> {
        let mut others = job.clone();
        for constraint in set.iter().filter(|constraint| **constraint != of) {
            others = constraint.without(&others).unwrap_or(others);
        }
        let most = |most: u64, change: &dyn Fn(&mut Job, u64)| {
            let fits = |value| {
                let mut changed = others.clone();
                change(&mut changed, value);
                self.members_free(&changed) == changed.gang
            };
            largest(most, fits)
        };
        let request = &job.request;
        match of {
            Constraint::Cpu => most(request.cpu_milli.into(), &|job, value| {
                job.request.cpu_milli = u32::try_from(value).unwrap_or(u32::MAX);
            }),
            Constraint::Memory => most(request.memory_mib.into(), &|job, value| {
                job.request.memory_mib = u32::try_from(value).unwrap_or(u32::MAX);
            }),
            Constraint::Gang => Some(self.members_free(&others).into()),
            Constraint::Gpus if request.shares() => {
                most(request.gpu_milli.into(), &|job, value| {
                    job.request.gpu_milli = u16::try_from(value).unwrap_or(u16::MAX);
                })
            }
            Constraint::Gpus => most(request.gpus.into(), &|job, value| {
                job.request.gpus = u8::try_from(value).unwrap_or(u8::MAX);
            }),
            _ => None,
        }
    }

    /// Members that there is room for now, at most all of them.
    pub(super) fn members_free(&self, job: &Job) -> u32 {
        let asks = self.room.asks(job, &self.config);
        let mut left = job.gang;
        for state in self.room.scheduler.cluster().states() {
            let mut state = *state;
            while left > 0
                && let Some(after) = asks.iter().find_map(|ask| with_one(ask, &state))
            {
                state = after;
                left -= 1;
            }
        }
        job.gang - left
    }
}

fn with_one(ask: &Ask, state: &State) -> Option<State> {
    if !ask.fits(state) {
        return None;
    }
    if ask.divides() {
        // From the end: starts there block fewest others.
        let slot = ask.slots(state).last()?;
        return Some(ask.on_slot(state, slot.gpu, slot.after));
    }
    if ask.shares() {
        let gpus = 0..usize::from(state.gpus);
        let room = gpus.filter(|gpu| state.free[*gpu] >= ask.milli);
        return Some(ask.on_gpu(state, room.min_by_key(|gpu| state.free[*gpu])?));
    }
    Some(ask.on_fullest(state))
}

/// The first of the smallest sets that will do.
fn smallest(all: &[Constraint], will_do: impl Fn(&[Constraint]) -> bool) -> Vec<Constraint> {
    let mut sets: Vec<u32> = (0..1 << all.len()).collect();
    let members = |set: u32| {
        let numbered = all.iter().enumerate();
        let chosen = numbered.filter(move |(at, _)| set >> at & 1 == 1);
        chosen
            .map(|(_, constraint)| *constraint)
            .collect::<Vec<_>>()
    };
    sets.sort_by_cached_key(|set| (set.count_ones(), members(*set)));
    let mut sets = sets.into_iter().map(members);
    sets.find(|set| will_do(set))
        .unwrap_or_else(|| all.to_vec())
}

/// The largest value below `most` that fits, if any above nought does. What fits, fits when it is less.
pub(super) fn largest(most: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut fitting, mut beyond) = (0, most);
    while fitting + 1 < beyond {
        let middle = fitting.midpoint(beyond);
        if fits(middle) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    (fitting > 0).then_some(fitting)
}
