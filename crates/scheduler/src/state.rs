//! What is free on a node, and how a request changes that.

use std::hash::{Hash, Hasher};

use crate::cluster::Placement;
use crate::mig::{Automaton, GEOMETRIES, Geometry};
use crate::request::{MILLI, Request};

/// The largest machines sold have sixteen.
pub const GPUS_MAX: usize = 16;

/// Kinds of nodes told apart: same model, region, labels, price and power.
pub(crate) const KINDS_MAX: usize = 256;

/// What is free on a node, and all of it that a policy may look at. Nodes in the same state are scored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Index into the cluster's kinds.
    pub kind: u16,
    /// GPUs of the node, free or not.
    pub gpus: u8,
    /// Index into [`GEOMETRIES`] plus one; 0 where GPUs cannot be divided. All of a kind have the same.
    pub geometry: u8,
    pub cpu_milli: u32,
    pub memory_mib: u32,
    /// Of each GPU; 0 beyond `gpus`, and of a GPU that is divided.
    pub free: [u16; GPUS_MAX],
    /// State of each GPU in its geometry's automaton; 0 of one that is not divided.
    pub divided: [u16; GPUS_MAX],
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

    pub fn geometry(&self) -> Option<&'static Geometry> {
        GEOMETRIES.get(usize::from(self.geometry.checked_sub(1)?))
    }

    /// The same with GPUs in descending order: fewer states differ.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let gpus = usize::from(self.gpus);
        // Insertion sort: one GPU has changed since this was last in order.
        for at in 1..gpus {
            let mut place = at;
            while place > 0 && self.order(place - 1) < self.order(place) {
                self.free.swap(place - 1, place);
                self.divided.swap(place - 1, place);
                place -= 1;
            }
        }
        self
    }

    /// Divided, or free for it.
    fn divisible(&self, gpu: u8) -> bool {
        let gpu = usize::from(gpu);
        self.divided[gpu] != 0 || self.free[gpu] == MILLI
    }

    fn order(&self, gpu: usize) -> (u16, u16) {
        (self.free[gpu], self.divided[gpu])
    }
}

/// A quick one: states are looked up twice for each decision. Few nodes are divided, and the others do not pay for it.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(pack([self.kind, self.gpus.into(), 0, 0]) | u64::from(self.tags) << 32);
        hasher.write_u64(u64::from(self.cpu_milli) | u64::from(self.memory_mib) << 32);
        let mut all = |gpus: &[u16; GPUS_MAX]| {
            for gpus in gpus.chunks_exact(4) {
                hasher.write_u64(pack([gpus[0], gpus[1], gpus[2], gpus[3]]));
            }
        };
        all(&self.free);
        if self.divided != [0; GPUS_MAX] {
            all(&self.divided);
        }
    }
}

fn pack(parts: [u16; 4]) -> u64 {
    let [first, second, third, fourth] = parts.map(u64::from);
    first | second << 16 | third << 32 | fourth << 48
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
    /// The shape that is asked for plus one, by geometry, as bytes; 0 when no MIG instance is.
    pub instances: u64,
}

impl Ask {
    pub fn new(request: &Request, kinds: Kinds) -> Self {
        let instances = request.mig.as_deref().map_or(0, instances);
        Self {
            cpu_milli: request.cpu_milli,
            memory_mib: request.memory_mib,
            gpus: request.gpus,
            milli: if request.gpus == 0 {
                0
            } else {
                part(instances).unwrap_or(request.gpu_milli)
            },
            kinds,
            instances,
        }
    }

    pub fn shares(&self) -> bool {
        self.gpus == 1 && self.milli < MILLI && self.instances == 0
    }

    /// A MIG instance is asked for.
    pub fn divides(&self) -> bool {
        self.instances != 0
    }

    /// Which shape on this node; none where its GPUs have no such profile.
    pub fn shape(&self, state: &State) -> Option<u8> {
        let geometry = u32::from(state.geometry).checked_sub(1)?;
        let byte = self.instances.checked_shr(8 * geometry)? & 0xFF;
        u8::try_from(byte).ok()?.checked_sub(1)
    }

    /// GPUs that can take the instance, where on them, and the states that they would be in.
    pub fn slots<'a>(&self, state: &'a State) -> impl Iterator<Item = Slot> + use<'a> {
        let found = self.shape(state).zip(state.geometry());
        let gpus = found.into_iter().flat_map(move |(shape, geometry)| {
            let usable = (0..state.gpus).filter(|gpu| state.divisible(*gpu));
            usable.map(move |gpu| (gpu, shape, geometry.automaton()))
        });
        gpus.flat_map(move |(gpu, shape, automaton)| {
            let before = state.divided[usize::from(gpu)];
            let starts = automaton.starts(before, shape);
            starts.map(move |(start, after)| Slot {
                gpu,
                start,
                before,
                after,
                automaton,
            })
        })
    }

    fn instance_fits(&self, state: &State) -> bool {
        let Some((shape, geometry)) = self.shape(state).zip(state.geometry()) else {
            return false;
        };
        let automaton = geometry.automaton();
        let mut usable = (0..state.gpus).filter(|gpu| state.divisible(*gpu));
        usable.any(|gpu| automaton.fits(state.divided[usize::from(gpu)], shape))
    }

    /// The state after placing the instance there, which must be one of its [`slots`](Self::slots).
    #[must_use]
    pub fn on_slot(&self, state: &State, gpu: u8, divided: u16) -> State {
        let mut after = *state;
        after.cpu_milli -= self.cpu_milli;
        after.memory_mib -= self.memory_mib;
        after.free[usize::from(gpu)] = 0;
        after.divided[usize::from(gpu)] = divided;
        after.tags |= self.tag();
        after
    }

    pub fn total_milli(&self) -> u32 {
        u32::from(self.gpus) * u32::from(self.milli)
    }

    /// `share-gpu` or `n-gpu` in the words of the FGD artifact; nothing without a GPU.
    pub fn tag(&self) -> u32 {
        match self.gpus {
            0 => 0,
            1 if self.milli < MILLI || self.divides() => 1,
            many => 1 << many.min(31),
        }
    }

    pub fn fits(&self, state: &State) -> bool {
        self.obstacle(state).is_none()
    }

    /// Frees on a node what was taken there; tags stay.
    pub(crate) fn give_back(&self, state: &mut State, placement: &Placement) {
        state.cpu_milli += self.cpu_milli;
        state.memory_mib += self.memory_mib;
        if self.divides() {
            let shape = self.shape(state).zip(state.geometry());
            let at = placement.gpus.first().zip(placement.slice);
            if let Some(((shape, geometry), (gpu, slice))) = shape.zip(at) {
                let gpu = usize::from(*gpu);
                let before = state.divided[gpu];
                let after = geometry.automaton().without(before, shape, slice);
                state.divided[gpu] = after.unwrap_or(before);
                state.free[gpu] = if state.divided[gpu] == 0 { MILLI } else { 0 };
            }
            return;
        }
        for gpu in &placement.gpus {
            let free = &mut state.free[usize::from(*gpu)];
            *free = (*free + self.milli).min(MILLI);
        }
    }

    /// How many of these the node can take.
    pub fn times(&self, state: &State) -> u32 {
        if !self.kinds.contains(state.kind) {
            return 0;
        }
        if self.divides() {
            let mut state = *state;
            let mut times = 0;
            // From the end: starts there block fewest others.
            while self.fits(&state)
                && let Some(slot) = self.slots(&state).last()
            {
                state = self.on_slot(&state, slot.gpu, slot.after);
                times += 1;
            }
            return times;
        }
        let by = |free: u32, asked: u32| free.checked_div(asked).unwrap_or(u32::MAX);
        let by_gpus = if self.gpus == 0 {
            u32::MAX
        } else if self.gpus == 1 {
            let free = state.free().iter();
            free.map(|free| u32::from(*free / self.milli.max(1))).sum()
        } else {
            u32::try_from(self.sufficient(state)).unwrap_or(0) / u32::from(self.gpus)
        };
        by_gpus
            .min(by(state.cpu_milli, self.cpu_milli))
            .min(by(state.memory_mib, self.memory_mib))
    }

    /// The first thing that stands in the way.
    pub fn obstacle(&self, state: &State) -> Option<Obstacle> {
        if !self.kinds.contains(state.kind) {
            Some(Obstacle::Kind)
        } else if state.cpu_milli < self.cpu_milli {
            Some(Obstacle::Cpu)
        } else if state.memory_mib < self.memory_mib {
            Some(Obstacle::Memory)
        } else if self.divides() {
            (!self.instance_fits(state)).then_some(Obstacle::Instance)
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
    /// No GPU has the slices of the MIG profile free, at a start that is legal.
    Instance,
}

/// Where a MIG instance may be.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub gpu: u8,
    /// Its first memory slice.
    pub start: u8,
    /// The GPU's states in the automaton.
    pub before: u16,
    pub after: u16,
    pub automaton: &'static Automaton,
}

/// By geometry, a byte each.
fn instances(profile: &str) -> u64 {
    let geometries = GEOMETRIES.iter().enumerate();
    geometries
        .filter_map(|(at, geometry)| Some(u64::from(geometry.shape(profile)? + 1) << (8 * at)))
        .sum()
}

/// Of a GPU's memory, in the last geometry that has the profile; none when no instance is asked for.
fn part(instances: u64) -> Option<u16> {
    let index = instances.checked_ilog2()? / 8;
    let geometry = GEOMETRIES.get(index as usize)?;
    let shape = usize::try_from(instances >> (8 * index) & 0xFF).ok()?;
    let shape = geometry.family.shapes.get(shape.checked_sub(1)?)?;
    Some(MILLI * u16::from(shape.memory) / u16::from(geometry.family.memory))
}
