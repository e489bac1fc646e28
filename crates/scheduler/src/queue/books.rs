//! A job's way through its phases, and what it takes on that way.

use super::action::{Action, Admission, Eviction, Wait};
use super::defragment::Member;
use super::ends::Ends;
use super::entry::{Entry, Phase};
use super::job::{Job, JobId};
use super::movable::Movables;
use super::refused::Refused;
use super::room::Taken;
use super::waiting::Waiting;
use super::{Amounts, Queue, Usage};
use crate::cluster::Node;

impl Queue {
    /// Pending → reserved.
    pub(super) fn reserve(
        &mut self,
        id: JobId,
        taken: Vec<Taken>,
        (reason, led): (Admission, bool),
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let places = taken.iter().map(|taken| self.room.place_of(taken));
        entry.phase = Phase::Reserved {
            places: places.collect(),
            waits_for: self.room.held_up(&taken, &self.draining),
            reason,
        };
        entry.led = led;
        self.usage.add(entry);
        self.seat(id, taken);
        self.seated(id);
        self.reserved.insert(id);
        self.no_longer_pending(id);
    }

    /// Running → stopping. What it has is free for others, who start when it has stopped. It waits again from `again_ms` on.
    pub(super) fn stop(&mut self, id: JobId, reason: Eviction, again_ms: Option<u64>) {
        let Some(mut taken) = self.unseat(id) else {
            return;
        };
        self.room.give_back(&taken);
        self.draining.entry(id).or_default().append(&mut taken);
        self.stopping(id, reason, again_ms);
    }

    fn stopping(&mut self, id: JobId, reason: Eviction, again_ms: Option<u64>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.usage.remove(entry);
        if let Some(now_ms) = again_ms {
            entry.saved_ms = entry.saved_by(now_ms);
        }
        let mut places = entry.phase.places().to_vec();
        if let Phase::Running { leaving, .. } = &mut entry.phase {
            places.append(leaving);
        }
        entry.phase = Phase::Stopping {
            places,
            reason: reason.clone(),
            again: again_ms.is_some(),
        };
        self.outbox.push(Action::Stop { job: id, reason });
    }

    /// It has nothing any more.
    pub(super) fn vacate(&mut self, id: JobId) {
        if let Some(taken) = self.unseat(id) {
            self.room.give_back(&taken);
            if let Some(entry) = self.entries.get(&id) {
                self.usage.remove(entry);
            }
        }
        self.reserved.remove(&id);
        self.drained(id);
    }

    /// What it was leaving is free.
    pub(super) fn drained(&mut self, id: JobId) {
        if self.draining.remove(&id).is_some() {
            for other in &self.reserved {
                if let Some(entry) = self.entries.get_mut(other)
                    && let Phase::Reserved { waits_for, .. } = &mut entry.phase
                {
                    waits_for.remove(&id);
                }
            }
        }
    }

    /// What the job takes here, and whether it ever can.
    pub(super) fn measure(&mut self, job: &Job) {
        let asks = self.room.asks(job, &self.config);
        if self.room.possible(&asks, job.gang) {
            self.hopeless.remove(&job.id);
        } else {
            self.hopeless.insert(job.id);
        }
        self.asks.insert(job.id, asks);
    }

    fn seat(&mut self, id: JobId, taken: Vec<Taken>) {
        self.members += taken.len();
        self.taken.insert(id, taken);
    }

    fn unseat(&mut self, id: JobId) -> Option<Vec<Taken>> {
        let taken = self.taken.remove(&id)?;
        self.members -= taken.len();
        self.movables.leave(id, &taken);
        if let Some(entry) = self.entries.get(&id) {
            self.ends.leave(entry, &taken);
        }
        Some(taken)
    }

    /// Gives a member another place; the one it had is returned.
    pub(super) fn reseat(&mut self, member: Member, to: Taken) -> Option<Taken> {
        let taken = self.taken.get_mut(&member.job)?;
        // It is moving, so it is not to be moved again before it says that it is there.
        self.movables.leave(member.job, taken);
        let entry = self.entries.get(&member.job)?;
        self.ends.leave(entry, taken);
        let from = std::mem::replace(taken.get_mut(member.index)?, to);
        self.ends.enter(entry, taken);
        Some(from)
    }

    /// To be called when one that has places has got them, has started, or has come to rest after a move.
    pub(super) fn seated(&mut self, id: JobId) {
        let (Some(taken), Some(entry)) = (self.taken.get(&id), self.entries.get(&id)) else {
            return;
        };
        self.ends.enter(entry, taken);
        if self.movable(entry) {
            self.movables.enter(id, taken);
        }
    }

    /// Back in line, where it was before.
    pub(super) fn wait_again(&mut self, id: JobId, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.since_ms = now_ms;
        entry.led = false;
        entry.phase = Phase::Pending {
            wait: Wait::Pending,
        };
        *self.pending_of.entry(entry.job.tenant.clone()).or_default() += 1;
        self.pending.insert(id);
        self.line_up(id);
    }

    /// Puts one that waits among those that stand alike.
    pub(super) fn line_up(&mut self, id: JobId) {
        let (Some(entry), Some(asks)) = (self.entries.get_mut(&id), self.asks.get(&id)) else {
            return;
        };
        if let Phase::Pending { wait } = &mut entry.phase {
            if self.hopeless.contains(&id) {
                *wait = Wait::NoMatchingFlavor;
            } else {
                // The next step says how time has changed it since the beginning.
                self.waiting.enter(entry, asks, &self.config, 0);
            }
        }
    }

    pub(super) fn forget(&mut self, id: JobId) {
        self.no_longer_pending(id);
        self.asks.remove(&id);
        self.hopeless.remove(&id);
        self.entries.remove(&id);
    }

    fn no_longer_pending(&mut self, id: JobId) {
        if !self.pending.remove(&id) {
            return;
        }
        self.waiting.leave(id);
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
        self.members = 0;
        self.waiting = Waiting::default();
        self.full = super::admit::Full::default();
        self.movables = Movables::default();
        self.ends = Ends::default();
        self.draining.clear();
        self.reserved.clear();
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
        self.measure(&entry.job);
        let asks = self.asks.get(&id).map_or(&[][..], Vec::as_slice);
        let mut here = Vec::new();
        let mut wrong = None;
        for place in entry.phase.places() {
            match self.room.taken(asks, &entry.job, place) {
                Some(taken) => here.push(taken),
                None => wrong = wrong.or_else(|| Some(place.node.clone())),
            }
        }
        let mut leaving = Vec::new();
        if let Phase::Running { leaving: left, .. } = &entry.phase {
            leaving.extend(
                left.iter()
                    .filter_map(|place| self.room.taken(asks, &entry.job, place)),
            );
        }
        let first = entry.phase.places().first().map(|place| place.node.clone());
        match entry.phase {
            Phase::Pending { .. } => {}
            Phase::Stopping { .. } => leaving.append(&mut here),
            Phase::Reserved { .. } | Phase::Running { .. } => {
                self.usage.add(&entry);
                if wrong.is_none() && self.room.occupy(&here).is_err() {
                    wrong = first;
                }
                if wrong.is_some() {
                    leaving.append(&mut here);
                } else {
                    self.seat(id, here);
                }
            }
        }
        if !leaving.is_empty() {
            self.draining.insert(id, leaving);
        }
        let (reserved, stopping) = (
            matches!(entry.phase, Phase::Reserved { .. }),
            matches!(entry.phase, Phase::Stopping { .. }),
        );
        if reserved {
            self.reserved.insert(id);
        }
        self.entries.insert(id, entry);
        self.line_up(id);
        self.seated(id);
        match wrong {
            // What is gone has stopped already.
            Some(node) if !stopping => Err(node),
            _ => Ok(()),
        }
    }

    /// A node of this job is gone, or too small now.
    fn lost(&mut self, id: JobId, node: &str, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Phase::Reserved { .. } = entry.phase {
            // It has not been started, so there is nothing to stop.
            self.usage.remove(entry);
            let since_ms = entry.since_ms;
            self.draining.remove(&id);
            self.reserved.remove(&id);
            self.wait_again(id, since_ms);
            return;
        }
        let reason = Eviction::NodeFailures {
            node: node.to_owned(),
        };
        self.stopping(id, reason, Some(now_ms));
    }
}
