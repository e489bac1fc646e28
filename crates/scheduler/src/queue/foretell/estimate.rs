//! When a job will start: the queue lived forward several times, with durations drawn from what is known.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::super::Queue;
use super::super::entry::Phase;
use super::super::job::JobId;
use super::super::order::Usage;
use super::super::room::Taken;
use super::{Estimate, History};
use crate::hash::Fast;
use crate::policy::BestFit;
use crate::rng::Rng;
use crate::scheduler::Scheduler;
use crate::state::Ask;

/// Lives. More move the ninetieth percentile by less than what the history does.
const LIVES: usize = 24;

/// Jobs that end in one life before it is given up.
const ENDS_MAX: usize = 20_000;

impl Queue {
    /// `order` ends with the job itself. Jobs behind it, and those that have not come yet, are left out: how much they
    /// matter is in the history's stretch.
    pub(super) fn estimate(
        &self,
        order: &[JobId],
        now_ms: u64,
        history: &History,
    ) -> Option<Estimate> {
        let job = *order.last()?;
        let mut waits = Vec::new();
        for life in 0..LIVES as u64 {
            let mut rng = Rng::new(job.0.wrapping_mul(LIVES as u64).wrapping_add(life));
            if let Some(start_ms) =
                Life::new(self, now_ms, history, &mut rng).until(order, &mut rng)
            {
                waits.push(start_ms - now_ms);
            }
        }
        if waits.len() * 2 < LIVES {
            return None;
        }
        waits.sort_unstable();
        // Lives without an end count as the longest. The wait itself is one more draw, so it is below the k-th of n in k of n + 1
        // cases.
        let rank = |percent: usize| ((LIVES + 1) * percent).div_ceil(100);
        let at = |percent| waits[rank(percent).min(waits.len()) - 1];
        Some(history.stretched(at(50), at(90)))
    }
}

struct Life<'a> {
    queue: &'a Queue,
    history: &'a History,
    scheduler: Scheduler,
    usage: Usage,
    ends: BinaryHeap<Reverse<(u64, JobId)>>,
    /// Of jobs that were started in this life.
    started: Vec<(JobId, Vec<Taken>)>,
    now_ms: u64,
}

impl<'a> Life<'a> {
    fn new(queue: &'a Queue, now_ms: u64, history: &'a History, rng: &mut Rng) -> Self {
        let cluster = queue.cluster().clone();
        let ends = queue.taken.keys().filter_map(|id| {
            let entry = queue.entries.get(id)?;
            let elapsed = match entry.phase {
                Phase::Running { since_ms, .. } => entry.saved_ms + now_ms.saturating_sub(since_ms),
                _ => entry.saved_ms,
            };
            let left = history.remaining_ms(&entry.job, elapsed, rng);
            Some(Reverse((now_ms.saturating_add(left), *id)))
        });
        Self {
            queue,
            history,
            ends: ends.collect(),
            scheduler: Scheduler::new(cluster, Box::new(BestFit), 0),
            usage: queue.usage.clone(),
            started: Vec::new(),
            now_ms,
        }
    }

    /// When the last of these starts.
    fn until(&mut self, order: &[JobId], rng: &mut Rng) -> Option<u64> {
        let last = *order.last()?;
        let mut waiting = order.to_vec();
        for _ in 0..ENDS_MAX {
            let mut hopeless = HashSet::default();
            waiting.retain(|id| !self.start(*id, &mut hopeless, rng));
            if waiting.last() != Some(&last) {
                return Some(self.now_ms);
            }
            let Reverse((at_ms, id)) = self.ends.pop()?;
            self.now_ms = at_ms;
            self.end(id);
            while let Some(Reverse((next_ms, id))) = self.ends.peek().copied()
                && next_ms == at_ms
            {
                self.ends.pop();
                self.end(id);
            }
        }
        None
    }

    fn start(&mut self, id: JobId, hopeless: &mut HashSet<Ask, Fast>, rng: &mut Rng) -> bool {
        let queue = self.queue;
        let (Some(entry), Some(asks)) = (queue.entries.get(&id), queue.asks.get(&id)) else {
            return false;
        };
        if self.usage.obstacle(&entry.job, &queue.config).is_some() {
            return false;
        }
        let mut taken: Vec<Taken> = Vec::new();
        for _ in 0..entry.job.gang {
            let placed = asks.iter().find_map(|ask| {
                if hopeless.contains(ask) {
                    return None;
                }
                let placed = self.scheduler.place(ask);
                if placed.is_none() && taken.is_empty() {
                    hopeless.insert(*ask);
                }
                Some((*ask, placed?.placement))
            });
            let Some((ask, placement)) = placed else {
                self.give_back(&taken);
                return false;
            };
            taken.push(Taken { ask, placement });
        }
        self.usage.add(entry);
        let left = self.history.remaining_ms(&entry.job, entry.saved_ms, rng);
        self.ends
            .push(Reverse((self.now_ms.saturating_add(left), id)));
        self.started.push((id, taken));
        true
    }

    fn end(&mut self, id: JobId) {
        let queue = self.queue;
        if let Some(entry) = queue.entries.get(&id) {
            self.usage.remove(entry);
        }
        if let Some(at) = self.started.iter().position(|(started, _)| *started == id) {
            let (_, taken) = self.started.swap_remove(at);
            self.give_back(&taken);
        } else if let Some(taken) = queue.taken.get(&id) {
            self.give_back(taken);
        }
    }

    fn give_back(&mut self, taken: &[Taken]) {
        for taken in taken {
            self.scheduler.release(&taken.ask, &taken.placement);
        }
    }
}
