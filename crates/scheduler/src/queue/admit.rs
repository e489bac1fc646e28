//! Whether one job may start: its tenant's quota, places beside what is kept for others, and who is stopped or moved for it.

use std::collections::{BTreeSet, HashMap};

use super::Queue;
use super::action::{Admission, Eviction, Wait};
use super::config::Order;
use super::job::JobId;
use super::order;
use super::room::Taken;
use super::round::{Round, SEARCHES_MAX, Search};
use super::world;
use crate::hash::Fast;
use crate::state::Ask;

/// Members that found no places though nothing was kept for others.
#[derive(Debug, Default)]
pub(super) struct Full {
    /// How often somebody had given something back by then.
    given_back: u64,
    /// As how many members, and how many of them would have found places.
    known: HashMap<Vec<Ask>, (u32, u32), Fast>,
}

impl Queue {
    pub(super) fn admit(&mut self, id: JobId, round: &mut Round) -> Result<(), Wait> {
        let Some(entry) = self.entries.get(&id) else {
            return Ok(());
        };
        if let Some(head) = round.closed_for.get(&entry.job.tenant) {
            return Err(Wait::Reserved { head: *head });
        }
        if let Some(wait) = self.usage.obstacle(&entry.job, &self.config) {
            // What its tenant gives back is for this job first.
            if matches!(wait, Wait::WaitingForQuota { .. }) && round.leads.contains(&id) {
                round.closed_for.insert(entry.job.tenant.clone(), id);
            }
            return Err(wait);
        }
        let borrows = self.usage.borrows(&entry.job, &self.config);
        let fit = match self.find(id, round) {
            Ok(taken) => {
                let reason = match round.head {
                    Some(head) => Admission::Backfilled { head },
                    None if borrows => Admission::Borrowing,
                    None => Admission::QuotaReserved,
                };
                self.reserve(id, taken, (reason, round.leads.contains(&id)));
                round.changed();
                return Ok(());
            }
            Err(wait) => wait,
        };
        if self.config.preemption && self.preempt(id, round) {
            return Ok(());
        }
        if self.defragment(id, round) {
            return Ok(());
        }
        self.keep_room(id, round);
        Err(fit)
    }

    /// So many of these members fit where nothing is kept for anybody, and nothing was given back since that was found.
    pub(super) fn full(&self, asks: &[Ask], gang: u32) -> Option<u32> {
        if self.full.given_back != self.room.given_back {
            return None;
        }
        let (failed, fit) = self.full.known.get(asks)?;
        (gang >= *failed).then_some(*fit)
    }

    fn is_full(&mut self, asks: &[Ask], gang: u32, fit: u32) {
        if self.full.given_back != self.room.given_back {
            self.full = Full {
                given_back: self.room.given_back,
                ..Full::default()
            };
        }
        self.full.known.insert(asks.to_vec(), (gang, fit));
    }

    /// Places for all members: beside what is kept for others, or there if it is over before that is needed.
    fn find(&mut self, id: JobId, round: &mut Round) -> Result<Vec<Taken>, Wait> {
        let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id)) else {
            return Err(Wait::Pending);
        };
        let gang = entry.job.gang;
        if let Some(fit) = self.full(asks, gang) {
            return Err(Wait::TopologyPlacementFailed { fit });
        }
        let left = entry.remaining_ms();
        let end_ms = left.map_or(u64::MAX, |left| round.now_ms.saturating_add(left));
        let opened = round.opens(end_ms);
        let mut fit = 0;
        if !round.shut(asks, gang, 0) {
            match self.room.place(asks, gang) {
                Ok(taken) => return Ok(taken),
                Err(members) => fit = members,
            }
            round.shuts(asks, gang, 0);
        }
        if opened > 0 && !round.shut(asks, gang, opened) {
            let asks = asks.clone();
            match self.before(&asks, gang, opened, round) {
                Ok(taken) => return Ok(taken),
                Err(members) => fit = members,
            }
            round.shuts(&asks, gang, opened);
        }
        self.why_not(id, fit, round)
    }

    /// With the first so many fences open.
    fn before(
        &mut self,
        asks: &[Ask],
        gang: u32,
        opened: usize,
        round: &mut Round,
    ) -> Result<Vec<Taken>, u32> {
        let fences = &mut round.fences[..opened];
        fences.iter().for_each(|fence| self.lower(fence));
        let placed = self.room.place(asks, gang);
        fences.iter_mut().for_each(|fence| self.raise(fence));
        placed
    }

    /// It finds no places: there are none, or those that there are are kept.
    fn why_not(&mut self, id: JobId, fit: u32, round: &mut Round) -> Result<Vec<Taken>, Wait> {
        let full = Wait::TopologyPlacementFailed { fit };
        let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id).cloned()) else {
            return Err(full);
        };
        let gang = entry.job.gang;
        let Some(first) = round.fences.first().map(|fence| fence.head) else {
            self.is_full(&asks, gang, fit);
            return Err(full);
        };
        if round.kept(&asks, gang) {
            return Err(Wait::Reserved { head: first });
        }
        round.fences.iter().for_each(|fence| self.lower(fence));
        let room = world::fits(self.cluster().states(), &asks, gang);
        round.fences.iter_mut().for_each(|fence| self.raise(fence));
        if room {
            round.is_kept(&asks, gang);
            return Err(Wait::Reserved { head: first });
        }
        self.is_full(&asks, gang, fit);
        Err(full)
    }

    /// Stops others so that this one fits, if that is right and enough.
    fn preempt(&mut self, id: JobId, round: &mut Round) -> bool {
        let early = self
            .entries
            .get(&id)
            .and_then(order::last_start_ms)
            .is_some_and(|last| round.now_ms < last);
        // Who can still wait stops nobody.
        if early || round.searches >= SEARCHES_MAX {
            return false;
        }
        let group = self.waiting.group_of(id);
        if !round.may_search(group, Search::Stop) {
            return false;
        }
        let leads = round.fences.iter().filter(|fence| fence.leads);
        let fenced: BTreeSet<_> = leads
            .flat_map(|fence| fence.holds.iter().map(|hold| hold.node))
            .collect();
        let Some(victims) = self.victims(id, round.now_ms, &fenced) else {
            round.in_vain(group, Search::Stop);
            return false;
        };
        let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id)) else {
            return false;
        };
        let reasons: Vec<_> = victims
            .iter()
            .filter_map(|victim| {
                let other = self.entries.get(victim)?;
                let how = self.may_preempt(entry, other, round.now_ms)?;
                Some((*victim, how))
            })
            .collect();
        let theirs: Vec<Taken> = victims
            .iter()
            .filter_map(|victim| self.taken.get(victim))
            .flatten()
            .cloned()
            .collect();
        let gang = entry.job.gang;
        self.room.give_back(&theirs);
        let placed = self.room.place(asks, gang);
        let Ok(taken) = placed else {
            let back = self.room.occupy(&theirs);
            debug_assert!(back.is_ok(), "what was free a moment ago is free");
            return false;
        };
        // The books give the room back themselves.
        self.room.give_back(&taken);
        let back = self.room.occupy(&theirs);
        debug_assert!(back.is_ok(), "what was free a moment ago is free");
        for (victim, how) in reasons {
            self.stop(
                victim,
                Eviction::Preempted { by: id, how },
                Some(round.now_ms),
            );
        }
        let again = self.room.occupy(&taken);
        debug_assert!(again.is_ok(), "what was free a moment ago is free");
        let reason = Admission::Preempting { stopped: victims };
        self.reserve(id, taken, (reason, round.leads.contains(&id)));
        // What was in the way may no longer be.
        round.begin_afresh();
        true
    }

    /// Moves others so that this one fits, if it needs several GPUs in one place and the budget allows it.
    fn defragment(&mut self, id: JobId, round: &mut Round) -> bool {
        let several = self
            .entries
            .get(&id)
            .is_some_and(|entry| entry.job.request.gpus > 1);
        if !several || round.moves == 0 || round.searches >= SEARCHES_MAX {
            return false;
        }
        let group = self.waiting.group_of(id);
        if !round.may_search(group, Search::Move) {
            return false;
        }
        let before = self.moves_ms.len();
        let Some(taken) = self.make_room(id, round.now_ms, round.moves) else {
            round.in_vain(group, Search::Move);
            return false;
        };
        round.moves -= self.moves_ms.len() - before;
        let leads = round.leads.contains(&id);
        self.reserve(id, taken, (Admission::Defragmenting, leads));
        round.begin_afresh();
        true
    }

    /// The job waits; what others may still do depends on who it is.
    fn keep_room(&mut self, id: JobId, round: &mut Round) {
        let now_ms = round.now_ms;
        round.head.get_or_insert(id);
        if !self.config.backfill {
            self.close(id, round);
            return;
        }
        if round.fences.len() >= self.config.reservations_max {
            return;
        }
        let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id)) else {
            return;
        };
        let leads = round.leads.contains(&id);
        let haste = order::haste(entry, now_ms);
        if !leads && !order::keeps_room(entry.job.priority, haste, &self.config) {
            return;
        }
        let gang = entry.job.gang;
        if round.never(asks, gang) {
            return;
        }
        if let Some(mut fence) = self.fence(id, round) {
            self.raise(&mut fence);
            round.fences.push(fence);
            round.changed();
        } else {
            round.is_never(asks, gang);
        }
    }

    /// Nobody passes this one: of its tenant where each has a line of its own.
    fn close(&self, id: JobId, round: &mut Round) {
        match self.entries.get(&id) {
            Some(entry) if self.config.order == Order::Quota => {
                round.closed_for.insert(entry.job.tenant.clone(), id);
            }
            _ => round.closed = true,
        }
    }
}
