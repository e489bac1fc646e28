//! Who runs next, who waits and who makes room: jobs of many tenants in one cluster.
//!
//! ```text
//! submit · finish · stopped · cancel · nodes ──► Queue ──step(now)──► [Action]: Start · Stop · Move, each with its reason
//! ```
//! Reading order: [`Job`], [`qos`] (what its level promises), [`Config`] (quotas and rules), [`Action`] and the reasons,
//! [`Entry`] (what is known of a job), [`Queue`], then `order` (who goes first), `waiting` (in groups),
//! `step` and `admit` (who starts) and `room` (where).
//! Time is an argument in milliseconds and never goes back; where it begins does not matter. Whoever keeps the jobs calls
//! [`Queue::step`] after every change and when time has passed, does what it says and tells what came of it.

mod action;
mod admit;
mod books;
mod config;
mod defragment;
mod ends;
mod entry;
pub mod foretell;
mod head;
mod intake;
mod job;
mod journal;
mod leads;
mod movable;
mod order;
pub mod qos;
mod refused;
mod room;
mod round;
mod step;
mod victims;
mod waiting;
mod world;

use std::collections::{BTreeMap, BTreeSet};

pub use action::{Action, Admission, Eviction, Place, Preemption, Resource, Wait};
pub use config::{Amounts, Config, Order, Reclaim, Tenant};
pub use entry::{Entry, Phase, Saved};
pub use job::{Job, JobId, Priority, Region};
pub use journal::{Line, Told};
pub use qos::Level;
pub use refused::Refused;

use crate::cluster::{Cluster, Node};
use crate::state::Ask;
use crate::workload::Workload;
use admit::Full;
use ends::Ends;
use entry::VERSION;
use movable::Movables;
use order::Usage;
use room::{Room, Taken};
use waiting::Waiting;

/// Jobs, nodes, and who is where.
#[derive(Debug)]
pub struct Queue {
    config: Config,
    room: Room,
    entries: BTreeMap<JobId, Entry>,
    /// Those of them that wait for places.
    pending: BTreeSet<JobId>,
    pending_of: BTreeMap<String, usize>,
    /// The same in groups, without those that would not fit even if nothing ran.
    waiting: Waiting,
    /// Those that have places and have not been started.
    reserved: BTreeSet<JobId>,
    /// What each job's members take, where they may be; found again when the nodes change.
    asks: BTreeMap<JobId, Vec<Ask>>,
    /// Those that would not fit even if nothing ran.
    hopeless: BTreeSet<JobId>,
    /// What jobs have that start or run.
    taken: BTreeMap<JobId, Vec<Taken>>,
    movables: Movables,
    ends: Ends,
    /// What jobs still have that are being stopped. Others may get it, and start when these have stopped.
    draining: BTreeMap<JobId, Vec<Taken>>,
    usage: Usage,
    /// Decided between steps.
    outbox: Vec<Action>,
    seen: Workload,
    planned: Workload,
    learns: bool,
    arrivals: u64,
    moves_ms: Vec<u64>,
    /// Steps so far.
    rounds: u64,
    full: Full,
    /// Members that have places.
    members: usize,
}

impl Queue {
    /// The policy learns from arrivals what kinds of requests come.
    pub fn new(config: Config, nodes: Vec<Node>) -> Result<Self, Refused> {
        Self::build(config, nodes, Workload::default(), true)
    }

    /// The policy is told what kinds of requests come.
    pub fn knowing(config: Config, nodes: Vec<Node>, workload: Workload) -> Result<Self, Refused> {
        Self::build(config, nodes, workload, false)
    }

    fn build(
        config: Config,
        nodes: Vec<Node>,
        planned: Workload,
        learns: bool,
    ) -> Result<Self, Refused> {
        config.validate()?;
        let room = Room::new(&config, &nodes, &planned)?;
        let usage = Usage::new(Amounts::in_cluster(room.scheduler.cluster()));
        Ok(Self {
            config,
            room,
            entries: BTreeMap::new(),
            pending: BTreeSet::new(),
            pending_of: BTreeMap::new(),
            waiting: Waiting::default(),
            reserved: BTreeSet::new(),
            asks: BTreeMap::new(),
            hopeless: BTreeSet::new(),
            taken: BTreeMap::new(),
            movables: Movables::default(),
            ends: Ends::default(),
            draining: BTreeMap::new(),
            usage,
            outbox: Vec::new(),
            seen: Workload::default(),
            planned,
            learns,
            arrivals: 0,
            moves_ms: Vec::new(),
            rounds: 0,
            full: Full::default(),
            members: 0,
        })
    }

    /// A queue as it was when it was [saved](Self::save), with this configuration.
    pub fn restore(config: Config, saved: Saved) -> Result<Self, Refused> {
        if saved.version != VERSION {
            return Err(Refused::Config {
                field: "version",
                problem: format!("{} is not known, only {VERSION}", saved.version),
            });
        }
        let mut queue = Self::build(config, saved.nodes, saved.planned, saved.learns)?;
        queue.seen = saved.seen;
        queue.arrivals = saved.arrivals;
        queue.moves_ms = saved.moves_ms;
        queue.outbox = saved.actions;
        for entry in saved.entries {
            entry.job.validate()?;
            queue.readmit(entry)?;
        }
        Ok(queue)
    }

    pub fn save(&self) -> Saved {
        Saved {
            version: VERSION,
            nodes: self.cluster().nodes().to_vec(),
            entries: self.entries.values().cloned().collect(),
            seen: self.seen.clone(),
            planned: self.planned.clone(),
            learns: self.learns,
            arrivals: self.arrivals,
            moves_ms: self.moves_ms.clone(),
            actions: self.outbox.clone(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Nodes, and what is free on them for jobs that come now.
    pub fn cluster(&self) -> &Cluster {
        self.room.scheduler.cluster()
    }

    pub fn get(&self, id: JobId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All jobs that are not over, in the order of their ids.
    pub fn jobs(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Jobs that wait for places.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// When nothing overtakes this job any more.
    pub fn bound_ms(&self, id: JobId) -> Option<u64> {
        Some(order::bound_ms(self.entries.get(&id)?, &self.config))
    }

    /// What a tenant uses: its jobs that start or run.
    pub fn usage(&self, tenant: &str) -> Amounts {
        self.usage.of(tenant)
    }

    /// Its largest share of anything, divided by its weight.
    pub fn dominant_share(&self, tenant: &str) -> f64 {
        self.usage.share(tenant, &self.config)
    }

    fn entry(&self, id: JobId) -> Result<&Entry, Refused> {
        self.entries.get(&id).ok_or(Refused::Unknown { job: id })
    }
}

#[cfg(test)]
mod tests;
