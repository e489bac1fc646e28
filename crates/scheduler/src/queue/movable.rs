//! Members that may be moved, by node: kept as jobs start, move and end, so that a search for room looks at nodes that would
//! gain something and at nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::defragment::Member;
use super::job::JobId;
use super::room::Taken;
use crate::state::{GPUS_MAX, State};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Movables {
    /// Only nodes that have some.
    nodes: BTreeMap<usize, Movable>,
    jobs: BTreeSet<JobId>,
}

/// On one node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Movable {
    /// Those that give most room first.
    members: BTreeSet<(Reverse<u32>, Member)>,
    /// What they have together.
    cpu_milli: u32,
    memory_mib: u32,
    milli: [u16; GPUS_MAX],
}

impl Movables {
    /// Takes the members of a job that may be moved from now on. Instances are left out: a hold keeps no part of a divided GPU,
    /// so one might move to where room is made.
    pub(super) fn enter(&mut self, id: JobId, taken: &[Taken]) {
        if !self.jobs.insert(id) {
            return;
        }
        for (member, taken) in members(id, taken) {
            let there = self.nodes.entry(taken.placement.node).or_default();
            there.members.insert(member);
            there.cpu_milli += taken.ask.cpu_milli;
            there.memory_mib += taken.ask.memory_mib;
            for gpu in &taken.placement.gpus {
                there.milli[usize::from(*gpu)] += taken.ask.milli;
            }
        }
    }

    /// It may not be moved any more; `taken` is what it had when it could.
    pub(super) fn leave(&mut self, id: JobId, taken: &[Taken]) {
        if !self.jobs.remove(&id) {
            return;
        }
        for (member, taken) in members(id, taken) {
            let node = taken.placement.node;
            let Some(there) = self.nodes.get_mut(&node) else {
                continue;
            };
            there.members.remove(&member);
            there.cpu_milli -= taken.ask.cpu_milli;
            there.memory_mib -= taken.ask.memory_mib;
            for gpu in &taken.placement.gpus {
                there.milli[usize::from(*gpu)] -= taken.ask.milli;
            }
            if there.members.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// Ascending.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, &Movable)> {
        self.nodes.iter().map(|(node, movable)| (*node, movable))
    }
}

impl Movable {
    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.members.iter().map(|(_, member)| *member)
    }

    /// The node without all of them.
    pub(super) fn gone(&self, state: &State) -> State {
        let mut after = *state;
        after.cpu_milli += self.cpu_milli;
        after.memory_mib += self.memory_mib;
        for (free, milli) in after.free.iter_mut().zip(&self.milli) {
            *free += milli;
        }
        after
    }
}

fn members(id: JobId, taken: &[Taken]) -> impl Iterator<Item = ((Reverse<u32>, Member), &Taken)> {
    let members = taken.iter().enumerate();
    let whole = members.filter(|(_, taken)| !taken.ask.divides());
    whole.map(move |(index, taken)| {
        let member = Member { job: id, index };
        ((Reverse(taken.ask.total_milli()), member), taken)
    })
}
