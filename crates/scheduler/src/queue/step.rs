//! Who starts now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Queue;
use super::action::{Action, Admission, Eviction, Wait};
use super::entry::Phase;
use super::head::Fence;
use super::job::JobId;
use super::order;
use super::room::Taken;
use super::world::World;
use crate::hash::Fast;
use crate::state::Ask;

/// Searches for jobs to stop, in one step. Each looks at all that run; who comes later is looked at in the next step.
const SEARCHES_MAX: u32 = 16;

/// What is known in the course of one step.
#[derive(Debug, Default)]
struct Round {
    now_ms: u64,
    /// The first in line that has to wait for room.
    head: Option<JobId>,
    fences: Vec<Fence>,
    /// Demands that found no room beside the fences, and as how many members.
    hopeless: HashMap<Vec<Ask>, u32, Fast>,
    /// The same without any fence.
    impossible: HashMap<Vec<Ask>, u32, Fast>,
    ends: Option<Vec<(u64, JobId)>>,
    searches: u32,
    /// Nothing may start any more before the next step.
    closed: bool,
    /// Nor of these tenants, for the job that waits longest for its tenant's quota.
    closed_for: BTreeMap<String, JobId>,
}

impl Queue {
    /// What is to be done now. Asked again at the same moment, there is nothing more to do.
    pub fn step(&mut self, now_ms: u64) -> Vec<Action> {
        let mut round = Round {
            now_ms,
            ..Round::default()
        };
        for id in self.in_order(now_ms) {
            if let Err(wait) = self.admit(id, &mut round) {
                self.waits(id, wait);
            }
        }
        for fence in round.fences.iter().rev() {
            self.lower(fence);
        }
        self.start(now_ms);
        std::mem::take(&mut self.outbox)
    }

    /// When a step is due although nothing else happens: a job's deadline is close, or it has waited to its bound.
    pub fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let pending = self.pending.iter().filter_map(|id| self.entries.get(id));
        let moments = pending.flat_map(|entry| {
            let bound = order::bound_ms(entry, &self.config);
            [Some(bound), order::last_start_ms(entry)]
        });
        moments.flatten().filter(|moment| *moment > now_ms).min()
    }

    /// Jobs that wait, who goes first first.
    pub fn in_order(&self, now_ms: u64) -> Vec<JobId> {
        let pending = self.pending.iter().filter_map(|id| self.entries.get(id));
        let mut keyed: Vec<_> = pending
            .map(|entry| {
                let key = self.usage.key(entry, &self.config, now_ms);
                (key, entry.job.id)
            })
            .collect();
        keyed.sort_by(|left, right| order::total(&left.0, &right.0));
        keyed.into_iter().map(|(_, id)| id).collect()
    }

    fn admit(&mut self, id: JobId, round: &mut Round) -> Result<(), Wait> {
        let Some(entry) = self.entries.get(&id) else {
            return Ok(());
        };
        if self.hopeless.contains(&id) {
            return Err(Wait::NoMatchingFlavor);
        }
        if let Some(head) = round.closed_for.get(&entry.job.tenant) {
            return Err(Wait::Reserved { head: *head });
        }
        if let Some(wait) = self.usage.obstacle(&entry.job, &self.config) {
            // What its tenant gives back is for this job first.
            if matches!(wait, Wait::WaitingForQuota { .. })
                && order::starves(entry, &self.config, round.now_ms)
            {
                round.closed_for.insert(entry.job.tenant.clone(), id);
            }
            return Err(wait);
        }
        if round.closed {
            let head = round.head.unwrap_or(id);
            return Err(Wait::Reserved { head });
        }
        let borrows = self.usage.borrows(&entry.job, &self.config);
        let fit = match self.find(id, round) {
            Ok(taken) => {
                let reason = match round.head {
                    Some(head) => Admission::Backfilled { head },
                    None if borrows => Admission::Borrowing,
                    None => Admission::QuotaReserved,
                };
                self.reserve(id, taken, reason);
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

    /// Places for all members: beside what is kept for others, or there if it is over before that is needed.
    fn find(&mut self, id: JobId, round: &mut Round) -> Result<Vec<Taken>, Wait> {
        let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id)) else {
            return Err(Wait::Pending);
        };
        let gang = entry.job.gang;
        let known = |memo: &HashMap<Vec<Ask>, u32, Fast>| {
            memo.get(asks).is_some_and(|failed| gang >= *failed)
        };
        if known(&round.impossible) {
            return Err(Wait::TopologyPlacementFailed { fit: 0 });
        }
        let mut fit = 0;
        if !known(&round.hopeless) {
            match self.room.place(asks, gang) {
                Ok(taken) => return Ok(taken),
                Err(members) => fit = members,
            }
            round.hopeless.insert(asks.clone(), gang);
            if round.fences.is_empty() {
                round.impossible.insert(asks.clone(), gang);
            }
        }
        if round.fences.is_empty() {
            return Err(Wait::TopologyPlacementFailed { fit });
        }
        let end = entry.remaining_ms();
        let end = end.map_or(u64::MAX, |left| round.now_ms.saturating_add(left));
        self.before(id, end, round, fit)
    }

    /// With the fences open that this job does not hold up.
    fn before(
        &mut self,
        id: JobId,
        end_ms: u64,
        round: &mut Round,
        fit: u32,
    ) -> Result<Vec<Taken>, Wait> {
        let (Some(asks), Some(entry)) = (self.asks.get(&id).cloned(), self.entries.get(&id)) else {
            return Err(Wait::TopologyPlacementFailed { fit });
        };
        let gang = entry.job.gang;
        let mut placed = Err(fit);
        let mut opened = 0;
        for fence in &round.fences {
            // Those after the first that stays shut stay so too: later ones were found beside earlier ones.
            if end_ms > fence.until_ms {
                break;
            }
            self.lower(fence);
            opened += 1;
        }
        if opened > 0 {
            placed = self.room.place(&asks, gang);
        }
        let mut room = true;
        if placed.is_err() {
            round.fences[opened..]
                .iter()
                .for_each(|fence| self.lower(fence));
            room = World::new(self.cluster().states(), &asks, gang).fits();
            opened = round.fences.len();
        }
        for fence in &mut round.fences[..opened] {
            self.raise(fence);
        }
        placed.map_err(|fit| match round.fences.first() {
            Some(fence) if room => Wait::Reserved { head: fence.head },
            _ => {
                round.impossible.insert(asks, gang);
                Wait::TopologyPlacementFailed { fit }
            }
        })
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
        round.searches += 1;
        let starving = round.fences.iter().filter(|fence| fence.starving);
        let fenced: BTreeSet<_> = starving
            .flat_map(|fence| fence.holds.iter().map(|hold| hold.node))
            .collect();
        let Some(victims) = self.victims(id, round.now_ms, &fenced) else {
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
        self.reserve(id, taken, Admission::Preempting { stopped: victims });
        // What was in the way may no longer be.
        round.hopeless.clear();
        round.impossible.clear();
        round.ends = None;
        true
    }

    /// Moves others so that this one fits, if it needs several GPUs in one place and the budget allows it.
    fn defragment(&mut self, id: JobId, round: &mut Round) -> bool {
        let several = self
            .entries
            .get(&id)
            .is_some_and(|entry| entry.job.request.gpus > 1);
        if !several || round.searches >= SEARCHES_MAX {
            return false;
        }
        let most = self.moves_left(round.now_ms);
        if most == 0 {
            return false;
        }
        round.searches += 1;
        let Some(taken) = self.make_room(id, round.now_ms, most) else {
            return false;
        };
        self.reserve(id, taken, Admission::Defragmenting);
        round.hopeless.clear();
        round.impossible.clear();
        round.ends = None;
        true
    }

    /// The job waits; what others may still do depends on who it is.
    fn keep_room(&mut self, id: JobId, round: &mut Round) {
        let now_ms = round.now_ms;
        round.head.get_or_insert(id);
        if !self.config.backfill {
            round.closed = true;
            return;
        }
        let starving = self
            .entries
            .get(&id)
            .is_some_and(|entry| order::starves(entry, &self.config, now_ms));
        if round.fences.len() >= self.config.reservations_max {
            // Without room kept for it, it would be overtaken.
            round.closed |= starving && self.config.reservations_max > 0;
            return;
        }
        let ends = round.ends.take().unwrap_or_else(|| self.ends(now_ms));
        if let Some(mut fence) = self.fence(id, &ends, starving) {
            self.raise(&mut fence);
            round.fences.push(fence);
        } else {
            round.closed |= starving;
        }
        round.ends = Some(ends);
    }

    fn waits(&mut self, id: JobId, why: Wait) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Phase::Pending { wait } = &mut entry.phase
        {
            *wait = why;
        }
    }

    /// Reserved → running, where nobody has to stop first.
    fn start(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.reserved) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let Phase::Reserved {
                places,
                waits_for,
                reason,
            } = &entry.phase
            else {
                continue;
            };
            if !waits_for.is_empty() {
                self.reserved.insert(id);
                continue;
            }
            entry.attempts += 1;
            entry.waited_ms += now_ms.saturating_sub(entry.since_ms);
            self.outbox.push(Action::Start {
                job: entry.job.id,
                attempt: entry.attempts,
                places: places.clone(),
                reason: reason.clone(),
            });
            entry.phase = Phase::Running {
                places: places.clone(),
                since_ms: now_ms,
                checkpoint_ms: now_ms,
                leaving: Vec::new(),
            };
        }
    }
}
