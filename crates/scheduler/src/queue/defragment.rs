//! Room in one place for who needs it there: members that may move do, few of them and not often.

use std::collections::BTreeSet;

use super::Queue;
use super::action::{Action, Eviction};
use super::entry::{Entry, Phase};
use super::job::{JobId, Priority};
use super::movable::Movable;
use super::refused::Refused;
use super::room::Taken;
use super::world::{self, World};
use crate::cluster::Hold;
use crate::state::State;

const HOUR_MS: u64 = 3_600_000;

/// One member of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub job: JobId,
    pub index: usize,
}

impl Queue {
    /// It runs where it was told to move, and no longer where it was.
    pub fn moved(&mut self, id: JobId) -> Result<(), Refused> {
        self.entry(id)?;
        if let Some(entry) = self.entries.get_mut(&id)
            && let Phase::Running { leaving, .. } = &mut entry.phase
        {
            leaving.clear();
            self.drained(id);
            self.seated(id);
        }
        Ok(())
    }

    /// Members that may be moved now: those of the last hour are counted.
    pub(super) fn moves_left(&mut self, now_ms: u64) -> usize {
        let permille = usize::from(self.config.moves_permille_hour);
        if permille == 0 {
            return 0;
        }
        self.moves_ms
            .retain(|at| now_ms.saturating_sub(*at) < HOUR_MS);
        (self.members * permille / 1_000).saturating_sub(self.moves_ms.len())
    }

    /// Moves members of others so that this job fits; nothing moves when it would not.
    pub(super) fn make_room(&mut self, id: JobId, now_ms: u64, most: usize) -> Option<Vec<Taken>> {
        let (entry, asks) = (self.entries.get(&id)?, self.asks.get(&id)?.clone());
        let gang = entry.job.gang;
        let mut world = World::new(self.cluster().states(), &asks, gang);
        let mut leaving: Vec<Member> = Vec::new();
        let mut cleared = BTreeSet::new();
        while !world.fits() {
            let nodes = self.movables.nodes();
            let nodes = nodes.filter(|(node, _)| !cleared.contains(node));
            let sets = nodes.filter_map(|(node, movable)| {
                let set = self.fewest((node, movable), &world, most - leaving.len())?;
                Some((node, set))
            });
            let (node, set) = sets.min_by_key(|(_, set)| {
                let milli: u32 = set.iter().filter_map(|member| self.size(*member)).sum();
                (set.len(), milli)
            })?;
            for member in &set {
                world.release(std::slice::from_ref(self.member(*member)?));
            }
            leaving.extend(set);
            cleared.insert(node);
        }
        let moved = self.resettle(&leaving, &cleared, &world)?;
        let taken = self.room.place(&asks, gang);
        let Ok(taken) = taken else {
            // The members go back to where they were.
            for (_, to) in &moved {
                self.room.give_back(std::slice::from_ref(to));
            }
            for (member, _) in &moved {
                let from = self.member(*member)?.clone();
                let back = self.room.occupy(&[from]);
                debug_assert!(back.is_ok(), "what was free a moment ago is free");
            }
            return None;
        };
        for (member, to) in moved {
            self.relocate(member, to, id);
            self.moves_ms.push(now_ms);
        }
        Some(taken)
    }

    fn member(&self, member: Member) -> Option<&Taken> {
        self.taken.get(&member.job)?.get(member.index)
    }

    fn size(&self, member: Member) -> Option<u32> {
        Some(self.member(member)?.ask.total_milli())
    }

    /// All its members, one by one: by its level, running, in no hurry, and not moving.
    pub(super) fn movable(&self, entry: &Entry) -> bool {
        matches!(&entry.phase, Phase::Running { leaving, .. } if leaving.is_empty())
            && entry.job.preemptible
            && entry.job.priority == Priority::CostOptimized
            && self.config.qos.of(entry.job.qos).movable
    }

    /// On one node, the fewest members to move so that one more of the gang fits there.
    fn fewest(
        &self,
        (node, movable): (usize, &Movable),
        world: &World<'_>,
        most: usize,
    ) -> Option<Vec<Member>> {
        let mut state = world.states[node];
        let enough = |state: &State| world.times_in(state) > world.times(node);
        if !enough(&movable.gone(&state)) {
            return None;
        }
        // Those that give most room first, then without those that were not needed.
        let mut set = Vec::new();
        for member in movable.members() {
            if enough(&state) {
                break;
            }
            world::release(&mut state, self.member(member)?);
            set.push(member);
        }
        for at in (0..set.len()).rev() {
            let without = state;
            world::occupy(&mut state, self.member(set[at])?);
            if enough(&state) {
                set.remove(at);
            } else {
                state = without;
            }
        }
        (set.len() <= most).then_some(set)
    }

    /// New places for all of them away from these nodes, which they take; nothing when one finds none.
    fn resettle(
        &mut self,
        leaving: &[Member],
        cleared: &BTreeSet<usize>,
        world: &World<'_>,
    ) -> Option<Vec<(Member, Taken)>> {
        // A move begins at once, so it does not lead to where others are still to stop.
        let stopping = self.draining.values().flatten();
        let stopping: BTreeSet<_> = stopping.map(|member| member.placement.node).collect();
        // Where the gang goes is not where they go, wherever that is among the nodes with room.
        let shut = (0..world.states.len()).filter(|node| {
            cleared.contains(node) || stopping.contains(node) || world.times(*node) > 0
        });
        let mut holds: Vec<Hold> = shut
            .map(|node| {
                let state = &self.cluster().states()[node];
                Hold {
                    node,
                    cpu_milli: state.cpu_milli,
                    memory_mib: state.memory_mib,
                    free: state.free,
                }
            })
            .collect();
        for hold in &mut holds {
            self.room.scheduler.hold(hold);
        }
        let mut moved: Vec<(Member, Taken)> = Vec::new();
        let mut all = true;
        for member in leaving {
            let from = self.member(*member).cloned();
            let to = from.and_then(|from| self.room.place(&[from.ask], 1).ok());
            match to.and_then(|mut to| to.pop()) {
                Some(to) => moved.push((*member, to)),
                None => {
                    all = false;
                    break;
                }
            }
        }
        for hold in &holds {
            self.room.scheduler.unhold(hold);
        }
        if !all {
            for (_, to) in &moved {
                self.room.give_back(std::slice::from_ref(to));
            }
            return None;
        }
        for (member, _) in &moved {
            let from = self.member(*member)?.clone();
            self.room.give_back(&[from]);
        }
        Some(moved)
    }

    /// Its new place is taken and its old one given back already; what is left is to write it down and to say it.
    fn relocate(&mut self, member: Member, to: Taken, by: JobId) {
        let place = self.room.place_of(&to);
        let Some(from) = self.reseat(member, to) else {
            return;
        };
        self.draining.entry(member.job).or_default().push(from);
        let Some(entry) = self.entries.get_mut(&member.job) else {
            return;
        };
        let Phase::Running {
            places, leaving, ..
        } = &mut entry.phase
        else {
            return;
        };
        leaving.push(std::mem::replace(&mut places[member.index], place.clone()));
        self.outbox.push(Action::Move {
            job: member.job,
            member: u32::try_from(member.index).unwrap_or(u32::MAX),
            to: place,
            reason: Eviction::Defragmented { by },
        });
    }
}
