//! What could be asked instead: found by looking for room, told only when the queue would start it.

use std::collections::BTreeSet;

use super::super::Queue;
use super::super::entry::{Entry, Phase};
use super::super::job::{Job, JobId, Priority, Region};
use super::super::qos::Level;
use super::blocking::{Blocking, Constraint, largest};
use super::{Change, Instead, started};
use crate::mig::{GEOMETRIES, geometry_of};

/// Told at most: more is no help.
const TOLD_MAX: usize = 6;

impl Change {
    /// The job with this change.
    pub fn apply(&self, job: &Job) -> Job {
        let mut job = job.clone();
        let request = &mut job.request;
        match self {
            Self::LessCpu { cpu_milli } => request.cpu_milli = *cpu_milli,
            Self::LessMemory { memory_mib } => request.memory_mib = *memory_mib,
            Self::FewerGpus { gpus: 0 } => {
                request.gpus = 0;
                request.gpu_milli = 0;
                request.mig = None;
                job.device_memory_mib = 0;
            }
            Self::FewerGpus { gpus } => request.gpus = *gpus,
            Self::SmallerShare { gpu_milli } => request.gpu_milli = *gpu_milli,
            Self::LessDeviceMemory { memory_mib } => job.device_memory_mib = *memory_mib,
            Self::SmallerProfile { profile } => request.mig = Some(profile.clone()),
            Self::AnotherModel { model } => request.models = [model.clone()].into(),
            Self::AnotherRegion { region } => {
                request.regions.clear();
                job.region = Region::Required(region.clone());
            }
            Self::NoLabels => request.labels.clear(),
            Self::SmallerGang { gang } => job.gang = *gang,
            Self::AnotherQos { level } => job.qos = *level,
            Self::Realtime => job.priority = Priority::Realtime,
        }
        job
    }
}

impl Queue {
    /// `behind` begins with the job itself: what goes after it cannot keep it from starting.
    pub(super) fn instead(
        &self,
        entry: &Entry,
        blocking: &[Blocking],
        behind: &BTreeSet<JobId>,
        now_ms: u64,
    ) -> Vec<Instead> {
        let job = &entry.job;
        let mut told = Vec::new();
        for change in self.single(job) {
            if told.len() >= TOLD_MAX {
                return told;
            }
            told.extend(self.tried(job, vec![change], behind, now_ms));
        }
        if told.is_empty() {
            let changes = self.together(job, blocking);
            told.extend(self.tried(job, changes, behind, now_ms));
        }
        for change in self.of_rank(job) {
            if told.len() < TOLD_MAX {
                told.extend(self.tried(job, vec![change], &BTreeSet::new(), now_ms));
            }
        }
        told
    }

    /// A copy of this queue with the changed job in the old one's place: does its next step start it?
    fn tried(
        &self,
        job: &Job,
        changes: Vec<Change>,
        behind: &BTreeSet<JobId>,
        now_ms: u64,
    ) -> Option<Instead> {
        if changes.is_empty() {
            return None;
        }
        let mut changed = job.clone();
        for change in &changes {
            changed = change.apply(&changed);
        }
        changed.validate().ok()?;
        let mut saved = self.save();
        saved.actions.clear();
        let goes = |id: JobId| id != job.id && behind.contains(&id);
        saved
            .entries
            .retain(|entry| !(matches!(entry.phase, Phase::Pending { .. }) && goes(entry.job.id)));
        for entry in &mut saved.entries {
            if entry.job.id == job.id {
                entry.job = changed.clone();
            }
        }
        let mut copy = Self::restore(self.config.clone(), saved).ok()?;
        let places = started(copy.step(now_ms), job.id)?;
        Some(Instead { changes, places })
    }

    /// One change each after which there is room.
    fn single(&self, job: &Job) -> Vec<Change> {
        let mut changes = self.elsewhere(job);
        for constraint in [
            Constraint::DeviceMemory,
            Constraint::Memory,
            Constraint::Cpu,
            Constraint::MigProfile,
            Constraint::Gpus,
            Constraint::Gang,
        ] {
            changes.extend(
                self.less(job, constraint)
                    .filter(|change| self.room_for(&change.apply(job))),
            );
        }
        changes
    }

    /// Another region, model, or no labels.
    fn elsewhere(&self, job: &Job) -> Vec<Change> {
        let kinds = self.cluster().kinds();
        let mut changes = Vec::new();
        if job.region != Region::Anywhere || !job.request.regions.is_empty() {
            let regions = self.room.regions().into_iter();
            changes.extend(regions.map(|region| Change::AnotherRegion {
                region: region.to_owned(),
            }));
        }
        if !job.request.models.is_empty() {
            let models: BTreeSet<&str> = kinds.iter().map(|kind| kind.model.as_str()).collect();
            let others = models.into_iter().filter(|model| !model.is_empty());
            changes.extend(others.map(|model| Change::AnotherModel {
                model: model.to_owned(),
            }));
        }
        if !job.request.labels.is_empty() {
            changes.push(Change::NoLabels);
        }
        changes.retain(|change| {
            let changed = change.apply(job);
            changed != *job && self.room_for(&changed)
        });
        changes
    }

    /// Changes that need no room: who stops for whom is only known when it is tried.
    fn of_rank(&self, job: &Job) -> Vec<Change> {
        let mut changes = Vec::new();
        let levels = (1..=5).filter_map(|number| Level::try_from(number).ok());
        for level in levels.filter(|level| *level != job.qos) {
            let change = Change::AnotherQos { level };
            // A lower level reserves less of a device; the highest may make others stop.
            if level == Level::HIGHEST || self.room_for(&change.apply(job)) {
                changes.push(change);
            }
        }
        if job.priority != Priority::Realtime {
            changes.push(Change::Realtime);
        }
        changes
    }

    fn room_for(&self, job: &Job) -> bool {
        self.members_free(job) == job.gang && self.usage.obstacle(job, &self.config).is_none()
    }

    /// As little less of one thing as makes room.
    fn less(&self, job: &Job, constraint: Constraint) -> Option<Change> {
        let request = &job.request;
        let shrink = |most: u64, change: &dyn Fn(u64) -> Change| {
            let fits = |value| self.room_for(&change(value).apply(job));
            largest(most, fits).map(change)
        };
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        match constraint {
            Constraint::Cpu => shrink(request.cpu_milli.into(), &|value| Change::LessCpu {
                cpu_milli: narrow(value),
            }),
            Constraint::Memory => shrink(request.memory_mib.into(), &|value| Change::LessMemory {
                memory_mib: narrow(value),
            }),
            Constraint::DeviceMemory => shrink(job.device_memory_mib.into(), &|value| {
                Change::LessDeviceMemory {
                    memory_mib: narrow(value),
                }
            }),
            Constraint::Gang => shrink(job.gang.into(), &|value| Change::SmallerGang {
                gang: narrow(value),
            }),
            Constraint::MigProfile => self.smaller_profile(job),
            Constraint::Gpus if request.mig.is_some() => None,
            Constraint::Gpus if request.shares() => {
                shrink(request.gpu_milli.into(), &|value| Change::SmallerShare {
                    gpu_milli: u16::try_from(value).unwrap_or(u16::MAX),
                })
            }
            Constraint::Gpus => shrink(request.gpus.into(), &|value| Change::FewerGpus {
                gpus: u8::try_from(value).unwrap_or(u8::MAX),
            }),
            _ => None,
        }
    }

    /// The next smaller ones of the devices that have the profile asked for; the first that there is room for.
    fn smaller_profile(&self, job: &Job) -> Option<Change> {
        let asked = job.request.mig.as_deref()?;
        let kinds = self.cluster().kinds().iter();
        let geometries = kinds.filter_map(|kind| geometry_of(&kind.model, kind.gpu_memory_mib));
        for geometry in geometries.map(|at| &GEOMETRIES[usize::from(at)]) {
            let Some(shape) = geometry.shape(asked) else {
                continue;
            };
            let below = geometry.profiles.iter().zip(geometry.family.shapes);
            let below = below.take(shape.into()).filter(|(_, shape)| !shape.media);
            for (profile, _) in below.rev() {
                let change = Change::SmallerProfile {
                    profile: (*profile).to_owned(),
                };
                if self.room_for(&change.apply(job)) {
                    return Some(change);
                }
            }
        }
        None
    }

    /// All of the set at once: each as little as it can be while those after it are not looked at.
    fn together(&self, job: &Job, blocking: &[Blocking]) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut changed = job.clone();
        for (at, one) in blocking.iter().enumerate() {
            let mut rest = changed.clone();
            for later in &blocking[at + 1..] {
                rest = later.constraint.without(&rest).unwrap_or(rest);
            }
            let change = match one.constraint {
                Constraint::Region | Constraint::GpuModel | Constraint::Labels => self
                    .elsewhere(&rest)
                    .into_iter()
                    .find(|change| kind_of(change) == one.constraint),
                Constraint::Gpus | Constraint::MigProfile => Some(
                    self.less(&rest, one.constraint)
                        .unwrap_or(Change::FewerGpus { gpus: 0 }),
                ),
                constraint => self.less(&rest, constraint),
            };
            let Some(change) = change else {
                return Vec::new();
            };
            changed = change.apply(&changed);
            changes.push(change);
        }
        changes
    }
}

fn kind_of(change: &Change) -> Constraint {
    match change {
        Change::AnotherRegion { .. } => Constraint::Region,
        Change::AnotherModel { .. } => Constraint::GpuModel,
        _ => Constraint::Labels,
    }
}
