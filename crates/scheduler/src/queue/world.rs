//! A copy of what is free, to be changed without consequences.

use super::room::Taken;
use crate::state::{Ask, State};

/// Members of one gang on the nodes of a cluster as it could be.
#[derive(Debug)]
pub(super) struct World<'a> {
    asks: &'a [Ask],
    gang: u32,
    pub states: Vec<State>,
    /// Members that fit, by node and together.
    times: Vec<u32>,
    fit: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(states: &[State], asks: &'a [Ask], gang: u32) -> Self {
        let mut world = Self {
            asks,
            gang,
            states: states.to_vec(),
            times: Vec::with_capacity(states.len()),
            fit: 0,
        };
        for state in states {
            let times = times(asks, gang, state);
            world.times.push(times);
            world.fit = world.fit.saturating_add(times);
        }
        world
    }

    pub(super) fn fits(&self) -> bool {
        self.fit >= self.gang
    }

    /// Members that fit on a node.
    pub(super) fn times(&self, node: usize) -> u32 {
        self.times[node]
    }

    /// Members that would fit on a node in this state, all of the gang at most.
    pub(super) fn times_in(&self, state: &State) -> u32 {
        times(self.asks, self.gang, state)
    }

    pub(super) fn release(&mut self, taken: &[Taken]) {
        for member in taken {
            let state = &mut self.states[member.placement.node];
            release(state, member);
            self.changed(member.placement.node);
        }
    }

    pub(super) fn occupy(&mut self, taken: &[Taken]) {
        for member in taken {
            let state = &mut self.states[member.placement.node];
            occupy(state, member);
            self.changed(member.placement.node);
        }
    }

    fn changed(&mut self, node: usize) {
        let times = times(self.asks, self.gang, &self.states[node]);
        self.fit = self.fit - self.times[node] + times;
        self.times[node] = times;
    }
}

/// A node's GPUs have one size and the node one region, so at most one of the forms of a demand fits it best.
fn times(asks: &[Ask], gang: u32, state: &State) -> u32 {
    let each = asks.iter().map(|ask| ask.times(state));
    each.max().unwrap_or(0).min(gang)
}

/// A gang finds places on these nodes.
pub(super) fn fits(states: &[State], asks: &[Ask], gang: u32) -> bool {
    let mut left = gang;
    states.iter().any(|state| {
        left -= times(asks, left, state);
        left == 0
    })
}

pub(super) fn release(state: &mut State, member: &Taken) {
    member.ask.give_back(state, &member.placement);
}

/// Takes what was [released](release) again.
pub(super) fn occupy(state: &mut State, member: &Taken) {
    let (ask, placement) = (&member.ask, &member.placement);
    if ask.divides() {
        let at = placement.gpus.first().copied().zip(placement.slice);
        let slot = ask
            .slots(state)
            .find(|slot| Some((slot.gpu, slot.start)) == at);
        if let Some(slot) = slot {
            *state = ask.on_slot(state, slot.gpu, slot.after);
        }
        return;
    }
    state.cpu_milli -= ask.cpu_milli;
    state.memory_mib -= ask.memory_mib;
    for gpu in &placement.gpus {
        state.free[usize::from(*gpu)] -= ask.milli;
    }
}
