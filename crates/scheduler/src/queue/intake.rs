//! What others tell the queue: jobs come and go, members stop, nodes join and leave.

use super::Queue;
use super::action::{Eviction, Wait};
use super::entry::{Entry, Phase};
use super::job::{Job, JobId, Region};
use super::refused::Refused;
use crate::cluster::Node;

/// Types of requests that are counted.
const TYPES_MAX: usize = 4_096;

/// The policy learns what has come after so many arrivals, then after twice as many, and so on, at last each time so many.
const PLAN_FIRST: u64 = 64;
const PLAN_EACH: u64 = 4_096;

impl Queue {
    /// Takes a job that is to run; [`step`](Self::step) says when.
    pub fn submit(&mut self, job: Job, now_ms: u64) -> Result<(), Refused> {
        job.validate()?;
        let id = job.id;
        if self.entries.contains_key(&id) {
            return Err(Refused::Known { job: id });
        }
        let regions = self.room.regions();
        if let Region::Preferred(region) | Region::Required(region) = &job.region
            && !regions.contains(region.as_str())
        {
            let known: Vec<_> = regions.into_iter().collect();
            return Err(Refused::Region {
                region: region.clone(),
                known: known.join(", "),
            });
        }
        if self.pending.len() >= self.config.pending_max {
            return Err(Refused::Full {
                max: self.config.pending_max,
            });
        }
        let pending = self.pending_of.entry(job.tenant.clone()).or_default();
        if *pending >= self.config.tenant_pending_max {
            return Err(Refused::TenantFull {
                tenant: job.tenant,
                max: self.config.tenant_pending_max,
            });
        }
        *pending += 1;
        self.learn(&job)?;
        self.measure(&job);
        self.pending.insert(id);
        let entry = Entry {
            job,
            submitted_ms: now_ms,
            since_ms: now_ms,
            waited_ms: 0,
            attempts: 0,
            saved_ms: 0,
            led: false,
            phase: Phase::Pending {
                wait: Wait::Pending,
            },
        };
        self.entries.insert(id, entry);
        self.line_up(id);
        Ok(())
    }

    /// It is over, well or not: all members have ended. True of a job in any phase but pending.
    pub fn finish(&mut self, id: JobId) -> Result<(), Refused> {
        let entry = self.entry(id)?;
        if let Phase::Pending { .. } = entry.phase {
            return Err(Refused::Phase {
                job: id,
                phase: entry.phase.word(),
                what: "finished",
            });
        }
        self.vacate(id);
        self.forget(id);
        Ok(())
    }

    /// All members have stopped, as [`Action::Stop`](super::Action::Stop) asked for; it waits again unless it was cancelled.
    pub fn stopped(&mut self, id: JobId, now_ms: u64) -> Result<(), Refused> {
        let entry = self.entry(id)?;
        let Phase::Stopping { again, .. } = entry.phase else {
            return Err(Refused::Phase {
                job: id,
                phase: entry.phase.word(),
                what: "stopped before it is asked to stop",
            });
        };
        self.vacate(id);
        if again {
            self.wait_again(id, now_ms);
        } else {
            self.forget(id);
        }
        Ok(())
    }

    /// Its work up to now is saved.
    pub fn checkpointed(&mut self, id: JobId, now_ms: u64) -> Result<(), Refused> {
        self.entry(id)?;
        if let Some(entry) = self.entries.get_mut(&id)
            && let Phase::Running { checkpoint_ms, .. } = &mut entry.phase
        {
            *checkpoint_ms = now_ms;
        }
        Ok(())
    }

    /// Nobody wants it any more. One that waits is gone at once; what runs is told to stop by the next step.
    pub fn cancel(&mut self, id: JobId) -> Result<(), Refused> {
        match &self.entry(id)?.phase {
            Phase::Pending { .. } => self.forget(id),
            Phase::Reserved { .. } => {
                self.vacate(id);
                self.forget(id);
            }
            Phase::Running { .. } => self.stop(id, Eviction::Deactivated, None),
            Phase::Stopping { .. } => {
                if let Some(entry) = self.entries.get_mut(&id)
                    && let Phase::Stopping { again, .. } = &mut entry.phase
                {
                    *again = false;
                }
            }
        }
        Ok(())
    }

    /// A node joins, or is another now than it was: then jobs that no longer fit there are stopped.
    pub fn node_joined(&mut self, node: Node, now_ms: u64) -> Result<(), Refused> {
        let mut nodes = self.room.scheduler.cluster().nodes().to_vec();
        let name = node.name.clone();
        match nodes.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = node,
            None => nodes.push(node),
        }
        self.rebuild(&nodes, now_ms)
    }

    /// A node is gone. Its jobs wait again; their members elsewhere are told to stop.
    pub fn node_left(&mut self, name: &str, now_ms: u64) -> Result<(), Refused> {
        let mut nodes = self.room.scheduler.cluster().nodes().to_vec();
        let before = nodes.len();
        nodes.retain(|node| node.name != name);
        if nodes.len() == before {
            return Err(Refused::Node {
                node: name.to_owned(),
                problem: "not known".to_owned(),
            });
        }
        self.rebuild(&nodes, now_ms)
    }

    fn learn(&mut self, job: &Job) -> Result<(), Refused> {
        self.seen.add(&job.request, TYPES_MAX);
        self.arrivals += 1;
        let arrivals = self.arrivals;
        let due = if arrivals < PLAN_EACH {
            arrivals >= PLAN_FIRST && arrivals.is_power_of_two()
        } else {
            arrivals.is_multiple_of(PLAN_EACH)
        };
        if due && self.learns {
            self.planned = self.seen.clone();
            let nodes = self.room.scheduler.cluster().nodes().to_vec();
            // Nothing moves: only the policy is another.
            self.rebuild(&nodes, 0)?;
        }
        Ok(())
    }
}
