//! A job's way through its phases, and what it takes on that way.

use super::action::{Action, Admission, Eviction, Wait};
use super::entry::{Entry, Phase};
use super::job::JobId;
use super::refused::Refused;
use super::room::Taken;
use super::{Amounts, Queue, Usage};
use crate::cluster::Node;

impl Queue {
    /// Pending → reserved.
    pub(super) fn reserve(&mut self, id: JobId, taken: Vec<Taken>, reason: Admission) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let places = taken.iter().map(|taken| self.room.place_of(taken));
        entry.phase = Phase::Reserved {
            places: places.collect(),
            waits_for: self.room.held_up(&taken, &self.draining),
            reason,
        };
        self.usage.add(&entry.job);
        self.taken.insert(id, taken);
        self.no_longer_pending(id);
    }

    /// Running → stopping. What it has is free for others, who start when it has stopped.
    pub(super) fn stop(&mut self, id: JobId, reason: Eviction, again: bool) {
        let Some(taken) = self.taken.remove(&id) else {
            return;
        };
        self.room.give_back(&taken);
        self.draining.insert(id, taken);
        self.stopping(id, reason, again);
    }

    fn stopping(&mut self, id: JobId, reason: Eviction, again: bool) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.usage.remove(&entry.job);
        entry.phase = Phase::Stopping {
            places: entry.phase.places().to_vec(),
            reason: reason.clone(),
            again,
        };
        self.outbox.push(Action::Stop { job: id, reason });
    }

    /// It has nothing any more.
    pub(super) fn vacate(&mut self, id: JobId) {
        if let Some(taken) = self.taken.remove(&id) {
            self.room.give_back(&taken);
            if let Some(entry) = self.entries.get(&id) {
                self.usage.remove(&entry.job);
            }
        }
        if self.draining.remove(&id).is_some() {
            for entry in self.entries.values_mut() {
                if let Phase::Reserved { waits_for, .. } = &mut entry.phase {
                    waits_for.remove(&id);
                }
            }
        }
    }

    /// Back in line, where it was before.
    pub(super) fn wait_again(&mut self, id: JobId, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.since_ms = now_ms;
        entry.phase = Phase::Pending {
            wait: Wait::Pending,
        };
        *self.pending_of.entry(entry.job.tenant.clone()).or_default() += 1;
        self.pending.insert(id);
    }

    pub(super) fn forget(&mut self, id: JobId) {
        self.no_longer_pending(id);
        self.asks.remove(&id);
        self.entries.remove(&id);
    }

    fn no_longer_pending(&mut self, id: JobId) {
        if !self.pending.remove(&id) {
            return;
        }
        if let Some(entry) = self.entries.get(&id)
            && let Some(count) = self.pending_of.get_mut(&entry.job.tenant)
        {
            *count -= 1;
            if *count == 0 {
                self.pending_of.remove(&entry.job.tenant);
            }
        }
    }

    /// The same jobs on other nodes, or with another policy.
    pub(super) fn rebuild(&mut self, nodes: &[Node], now_ms: u64) -> Result<(), Refused> {
        self.room = super::room::Room::new(&self.config, nodes, &self.planned)?;
        self.usage = Usage::new(Amounts::in_cluster(self.cluster()));
        self.taken.clear();
        self.draining.clear();
        let entries = std::mem::take(&mut self.entries);
        let mut homeless = Vec::new();
        for (id, entry) in entries {
            if let Err(node) = self.settle(entry) {
                homeless.push((id, node));
            }
        }
        for (id, node) in homeless {
            self.lost(id, &node, now_ms);
        }
        Ok(())
    }

    /// A job as it was when the queue was saved.
    pub(super) fn readmit(&mut self, entry: Entry) -> Result<(), Refused> {
        let id = entry.job.id;
        if self.entries.contains_key(&id) {
            return Err(Refused::Known { job: id });
        }
        if let Phase::Pending { .. } = entry.phase {
            *self.pending_of.entry(entry.job.tenant.clone()).or_default() += 1;
            self.pending.insert(id);
        }
        self.settle(entry).map_err(|node| Refused::Node {
            node,
            problem: format!("not able to take job {id}, which is said to be there"),
        })
    }

    /// Gives it what it has; else says on which node that is not possible, and it has nothing.
    fn settle(&mut self, entry: Entry) -> Result<(), String> {
        let id = entry.job.id;
        self.asks
            .insert(id, self.room.asks(&entry.job, &self.config));
        let taken: Vec<_> = {
            let places = entry.phase.places().iter();
            places
                .map(|place| (place, self.room.taken(&entry.job, place)))
                .collect()
        };
        let missing = taken.iter().find(|(_, taken)| taken.is_none());
        let missing = missing.map(|(place, _)| place.node.clone());
        let first = taken.first().map(|(place, _)| place.node.clone());
        let here: Vec<_> = taken.into_iter().filter_map(|(_, taken)| taken).collect();
        let stopping = matches!(entry.phase, Phase::Stopping { .. });
        if !stopping && first.is_some() {
            self.usage.add(&entry.job);
        }
        self.entries.insert(id, entry);
        if stopping {
            self.draining.insert(id, here);
            return Ok(());
        }
        if let Some(node) = missing {
            self.draining.insert(id, here);
            return Err(node);
        }
        let Some(first) = first else {
            return Ok(());
        };
        if self.room.occupy(&here).is_err() {
            self.draining.insert(id, here);
            return Err(first);
        }
        self.taken.insert(id, here);
        Ok(())
    }

    /// A node of this job is gone, or too small now.
    fn lost(&mut self, id: JobId, node: &str, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.saved_ms = entry.saved_by(now_ms);
        if let Phase::Reserved { .. } = entry.phase {
            // It has not been started, so there is nothing to stop.
            self.usage.remove(&entry.job);
            let since_ms = entry.since_ms;
            self.draining.remove(&id);
            self.wait_again(id, since_ms);
            return;
        }
        let reason = Eviction::NodeFailures {
            node: node.to_owned(),
        };
        self.stopping(id, reason, true);
    }
}
