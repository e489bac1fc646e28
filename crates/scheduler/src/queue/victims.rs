//! Who makes room for a job that matters more: the cheapest ones to start again, as few as will do, or nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::Queue;
use super::action::Preemption;
use super::config::Reclaim;
use super::entry::{Entry, Phase};
use super::head::end_ms;
use super::job::JobId;
use super::order;
use super::room::Taken;
use super::world::{self, World};
use crate::state::State;

/// Somebody who may be stopped for this job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Of its level; lower goes first.
    order: u8,
    cost: u128,
    id: JobId,
}

impl Queue {
    /// Why one job may be stopped for another, if it may. Not for a lesser promise, not for an equal one that is not older,
    /// and not when it has waited past its own bound.
    pub fn may_preempt(&self, by: &Entry, victim: &Entry, now_ms: u64) -> Option<Preemption> {
        let (job, other) = (&by.job, &victim.job);
        let promise = self.config.qos.of(other.qos);
        if !matches!(victim.phase, Phase::Running { .. })
            || !other.preemptible
            || promise.preempted.is_none()
            || victim.waited_ms >= promise.overtaken_ms
            || other.priority > job.priority
            || other.qos > job.qos
            // What it is stopped for would come too late.
            || order::lapsed(by, now_ms)
        {
            return None;
        }
        let in_time = |deadline: u64| end_ms(victim, now_ms).is_some_and(|end| end <= deadline);
        if other.deadline_ms.is_some_and(in_time) && other.qos == job.qos {
            return None;
        }
        if (other.priority, other.qos) != (job.priority, job.qos) {
            return Some(Preemption::Prioritization);
        }
        let worth = match self.config.reclaim {
            Reclaim::Never => false,
            Reclaim::Worthwhile => {
                let left = end_ms(victim, now_ms).map_or(0, |end| end - now_ms);
                let takes = by.remaining_ms().unwrap_or(u64::MAX);
                victim.unsaved_ms(now_ms).saturating_add(takes) < left
            }
            Reclaim::Always => true,
        };
        let takes_back = worth
            && other.tenant != job.tenant
            && !self.usage.borrows(job, &self.config)
            && self.usage.borrowing(&other.tenant, &self.config);
        takes_back.then_some(Preemption::InCohortReclamation)
    }

    /// Whom to stop so that the job fits, with what is kept for others left alone. Nothing when it would not fit even then.
    pub(super) fn victims(
        &self,
        id: JobId,
        now_ms: u64,
        fenced: &BTreeSet<usize>,
    ) -> Option<Vec<JobId>> {
        let (entry, asks) = (self.entries.get(&id)?, self.asks.get(&id)?);
        let mut by_node: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
        for (other, taken) in &self.taken {
            let victim = self.entries.get(other)?;
            if self.may_preempt(entry, victim, now_ms).is_none()
                || taken
                    .iter()
                    .any(|member| fenced.contains(&member.placement.node))
            {
                continue;
            }
            let candidate = Candidate {
                order: self
                    .config
                    .qos
                    .of(victim.job.qos)
                    .preempted
                    .unwrap_or(u8::MAX),
                cost: victim.restart_cost(now_ms),
                id: *other,
            };
            for member in taken {
                let there = by_node.entry(member.placement.node).or_default();
                if there.last() != Some(&candidate) {
                    there.push(candidate);
                }
            }
        }
        if by_node.is_empty() {
            return None;
        }
        for there in by_node.values_mut() {
            there.sort_unstable();
        }
        let mut world = World::new(self.cluster().states(), asks, entry.job.gang);
        let mut chosen: BTreeSet<Candidate> = BTreeSet::new();
        while !world.fits() {
            let sets = by_node
                .iter()
                .filter_map(|(node, there)| self.cheapest(*node, there, &chosen, &world));
            let set = sets.min_by_key(|set| {
                let worst = set.iter().map(|candidate| candidate.order).max();
                let cost: u128 = set.iter().map(|candidate| candidate.cost).sum();
                (worst, cost, set.len())
            })?;
            for candidate in set {
                world.release(self.taken.get(&candidate.id)?);
                chosen.insert(candidate);
            }
        }
        // The dearest first: who is not needed after all stays.
        let all: Vec<_> = chosen.iter().rev().copied().collect();
        for candidate in all {
            let taken: &[Taken] = self.taken.get(&candidate.id)?;
            world.occupy(taken);
            if world.fits() {
                chosen.remove(&candidate);
            } else {
                world.release(taken);
            }
        }
        Some(chosen.into_iter().map(|candidate| candidate.id).collect())
    }

    /// On one node, whom to stop so that one member more fits there.
    fn cheapest(
        &self,
        node: usize,
        there: &[Candidate],
        chosen: &BTreeSet<Candidate>,
        world: &World<'_>,
    ) -> Option<Vec<Candidate>> {
        let mut state = world.states[node];
        let enough = |state: &State| world.times_in(state) > world.times(node);
        let here = |id: JobId| {
            let taken = self.taken.get(&id).into_iter().flatten();
            taken.filter(move |member| member.placement.node == node)
        };
        let mut set = Vec::new();
        for candidate in there.iter().filter(|candidate| !chosen.contains(candidate)) {
            if enough(&state) {
                break;
            }
            here(candidate.id).for_each(|member| world::release(&mut state, member));
            set.push(*candidate);
        }
        if !enough(&state) {
            return None;
        }
        for at in (0..set.len()).rev() {
            let without = state;
            here(set[at].id).for_each(|member| world::occupy(&mut state, member));
            if enough(&state) {
                set.remove(at);
            } else {
                state = without;
            }
        }
        Some(set)
    }
}
