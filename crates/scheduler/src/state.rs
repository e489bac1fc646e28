//! What is free on a node, and how a request changes that.

use crate::request::{MILLI, Request};

/// The largest machines sold have sixteen.
pub const GPUS_MAX: usize = 16;

/// Kinds of nodes told apart: same model, region, labels, price and power.
pub(crate) const KINDS_MAX: usize = 256;

/// What is free on a node, and all of it that a policy may look at. Nodes in the same state are scored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// Index into the cluster's kinds.
    pub kind: u16,
    /// GPUs of the node, free or not.
    pub gpus: u8,
    pub cpu_milli: u32,
    pub memory_mib: u32,
    /// Of each GPU; 0 beyond `gpus`.
    pub free: [u16; GPUS_MAX],
    /// Bit 0: a share runs here; bit n: a request for n whole GPUs does.
    pub tags: u32,
}

impl State {
    pub fn free(&self) -> &[u16] {
        &self.free[..usize::from(self.gpus)]
    }

    pub fn free_milli(&self) -> u32 {
        self.free().iter().copied().map(u32::from).sum()
    }

    pub fn whole(&self) -> usize {
        self.free().iter().filter(|free| **free == MILLI).count()
    }

    /// The same with GPUs in descending order: fewer states differ.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let gpus = usize::from(self.gpus);
        // Insertion sort: one GPU has changed since this was last in order.
        for at in 1..gpus {
            let mut place = at;
            while place > 0 && self.free[place - 1] < self.free[place] {
                self.free.swap(place - 1, place);
                place -= 1;
            }
        }
        self
    }
}

/// Which kinds of nodes a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kinds([u64; KINDS_MAX / 64]);

impl Kinds {
    pub const ALL: Self = Self([u64::MAX; KINDS_MAX / 64]);

    pub(crate) fn of(accepts: impl Iterator<Item = bool>) -> Self {
        let mut kinds = [0; KINDS_MAX / 64];
        for (kind, accepted) in accepts.enumerate().take(KINDS_MAX) {
            kinds[kind / 64] |= u64::from(accepted) << (kind % 64);
        }
        Self(kinds)
    }

    pub fn contains(&self, kind: u16) -> bool {
        let kind = usize::from(kind);
        self.0
            .get(kind / 64)
            .is_some_and(|word| word >> (kind % 64) & 1 == 1)
    }
}

/// A request as the cluster sees it: numbers, and the kinds of nodes that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    pub cpu_milli: u32,
    pub memory_mib: u32,
    pub gpus: u8,
    pub milli: u16,
    pub kinds: Kinds,
}

impl Ask {
    pub fn new(request: &Request, kinds: Kinds) -> Self {
        Self {
            cpu_milli: request.cpu_milli,
            memory_mib: request.memory_mib,
            gpus: request.gpus,
            milli: if request.gpus == 0 {
                0
            } else {
                request.gpu_milli
            },
            kinds,
        }
    }

    pub fn shares(&self) -> bool {
        self.gpus == 1 && self.milli < MILLI
    }

    pub fn total_milli(&self) -> u32 {
        u32::from(self.gpus) * u32::from(self.milli)
    }

    /// `share-gpu` or `n-gpu` in the words of the FGD artifact; nothing without a GPU.
    pub fn tag(&self) -> u32 {
        match self.gpus {
            0 => 0,
            1 if self.milli < MILLI => 1,
            many => 1 << many.min(31),
        }
    }

    pub fn fits(&self, state: &State) -> bool {
        self.obstacle(state).is_none()
    }

    /// The first thing that stands in the way.
    pub fn obstacle(&self, state: &State) -> Option<Obstacle> {
        if !self.kinds.contains(state.kind) {
            Some(Obstacle::Kind)
        } else if state.cpu_milli < self.cpu_milli {
            Some(Obstacle::Cpu)
        } else if state.memory_mib < self.memory_mib {
            Some(Obstacle::Memory)
        } else if self.gpus > 0 && self.sufficient(state) < usize::from(self.gpus) {
            Some(Obstacle::Gpu)
        } else {
            None
        }
    }

    /// GPUs with room for one part of this.
    pub fn sufficient(&self, state: &State) -> usize {
        let free = state.free().iter();
        free.filter(|free| **free >= self.milli).count()
    }

    /// The state after placing a part of a GPU on this one; the request must fit.
    #[must_use]
    pub fn on_gpu(&self, state: &State, gpu: usize) -> State {
        let mut after = *state;
        after.cpu_milli -= self.cpu_milli;
        after.memory_mib -= self.memory_mib;
        after.free[gpu] -= self.milli;
        after.tags |= self.tag();
        after
    }

    /// The state after placing whole GPUs, or none; fullest sufficient first, then by number. The request must fit.
    #[must_use]
    pub fn on_fullest(&self, state: &State) -> State {
        let mut after = *state;
        after.cpu_milli -= self.cpu_milli;
        after.memory_mib -= self.memory_mib;
        after.tags |= self.tag();
        for _ in 0..self.gpus {
            let fullest = (0..usize::from(after.gpus))
                // A GPU serves one part of a request; those taken are below in `state`'s terms.
                .filter(|gpu| after.free[*gpu] == state.free[*gpu])
                .filter(|gpu| after.free[*gpu] >= self.milli)
                .min_by_key(|gpu| after.free[*gpu]);
            if let Some(gpu) = fullest {
                after.free[gpu] -= self.milli;
            }
        }
        after
    }
}

/// Why a node cannot take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// Another GPU model, region or label.
    Kind,
    Cpu,
    Memory,
    Gpu,
}
