//! What a node will be left with: the same random sequences of requests are offered to every state, each request is taken
//! where it fits, and what is free in the end is averaged.
//!
//! Fragmentation asks whether the *next* request fits. This asks how it ends, so it sees that eight small requests use up
//! the CPU of the GPUs beside them, and that 810 and 160 thousandths of a GPU belong together.

use crate::request::MILLI;
use crate::rng::Rng;
use crate::state::{Ask, GPUS_MAX, State};

/// Any will do; the same one everywhere, so that a difference of two states is not one of two draws.
const SEED: u64 = 0x6b61_706f_6b00_0001;

/// Sequences: more smooth the estimate. Lengths: longer ones fill more of an empty node. 8 × 16 to 64 × 64 differ by a
/// tenth of a point of allocation, within the noise of two seeds.
pub(crate) const SEQUENCES: u32 = 16;
const LANES: usize = SEQUENCES as usize;
/// One bit each.
const LENGTH: usize = 32;

/// Sequences of types of requests, and each type as numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filling {
    types: Vec<Type>,
    /// Indices into `types`.
    draws: Vec<[u16; LENGTH]>,
}

#[derive(Debug, Clone)]
struct Type {
    ask: Ask,
    numbers: Numbers,
    /// Where in each sequence it stands.
    places: [u32; LANES],
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    cpu_milli: u32,
    memory_mib: u32,
    milli: i16,
    gpus: u8,
}

impl Filling {
    /// `types` with how often each occurs.
    pub(crate) fn new(types: &[(Ask, u32)]) -> Self {
        let mut cumulated = Vec::new();
        let mut total: usize = 0;
        for (_, count) in types {
            total += *count as usize;
            cumulated.push(total);
        }
        if total == 0 {
            return Self::default();
        }
        let mut types: Vec<Type> = types.iter().map(|(ask, _)| Type::new(*ask)).collect();
        // Even points of the distribution in random order: each type comes as often as it should, which independent draws
        // leave to chance.
        let mut points: Vec<usize> = (0..LANES * LENGTH)
            .map(|at| (2 * at + 1) * total / (2 * LANES * LENGTH))
            .collect();
        Rng::new(SEED).shuffle(&mut points);
        let mut points = points.into_iter();
        let mut draws = vec![[0; LENGTH]; LANES];
        for (sequence, draws) in draws.iter_mut().enumerate() {
            for ((place, draw), point) in draws.iter_mut().enumerate().zip(&mut points) {
                let index = cumulated.partition_point(|upper| *upper <= point);
                types[index].places[sequence] |= 1 << place;
                *draw = u16::try_from(index).unwrap_or(0);
            }
        }
        Self { types, draws }
    }

    /// Thousandths of a GPU left, summed over the [`SEQUENCES`].
    pub(crate) fn left(&self, state: &State) -> u32 {
        // Nearly all nodes have at most eight.
        if usize::from(state.gpus) <= GPUS_MAX / 2 {
            self.left_of::<{ GPUS_MAX / 2 }>(state)
        } else {
            self.left_of::<GPUS_MAX>(state)
        }
    }

    fn left_of<const GPUS: usize>(&self, state: &State) -> u32 {
        let start = Room::<GPUS>::of(state);
        // What does not fit now never will: only the places of the others are visited.
        let mut places = [0; LANES];
        let mut wants = Vec::with_capacity(self.types.len());
        for kind in &self.types {
            if kind.ask.kinds.contains(state.kind) && start.fits(&kind.numbers).is_some() {
                for (all, own) in places.iter_mut().zip(&kind.places) {
                    *all |= own;
                }
                if kind.numbers.gpus > 0 {
                    wants.push(kind.numbers);
                }
            }
        }
        if wants.is_empty() {
            return start.free_milli() * SEQUENCES;
        }
        let sequences = self.draws.iter().zip(places);
        sequences
            .map(|(draws, places)| self.end(start, draws, places, &wants))
            .sum()
    }

    fn end<const GPUS: usize>(
        &self,
        mut room: Room<GPUS>,
        draws: &[u16; LENGTH],
        mut places: u32,
        wants: &[Numbers],
    ) -> u32 {
        let mut last = 0;
        while places != 0 {
            let numbers = &self.types[usize::from(draws[places.trailing_zeros() as usize])].numbers;
            places &= places - 1;
            if let Some(at) = room.fits(numbers) {
                room.take(numbers, at);
                // The one that fitted last probably still does.
                if room.fits(&wants[last]).is_none() {
                    match wants
                        .iter()
                        .position(|numbers| room.fits(numbers).is_some())
                    {
                        Some(fits) => last = fits,
                        None => break,
                    }
                }
            }
        }
        room.free_milli()
    }
}

impl Type {
    fn new(ask: Ask) -> Self {
        Self {
            numbers: Numbers {
                cpu_milli: ask.cpu_milli,
                memory_mib: ask.memory_mib,
                milli: ask.milli.cast_signed(),
                gpus: ask.gpus,
            },
            ask,
            places: [0; LANES],
        }
    }
}

/// GPUs in descending order, 0 beyond the last. A fixed number of them, and signed: compared all at once (SSE2 compares no
/// unsigned numbers).
#[derive(Debug, Clone, Copy)]
struct Room<const GPUS: usize> {
    cpu_milli: u32,
    memory_mib: u32,
    free: [i16; GPUS],
}

impl<const GPUS: usize> Room<GPUS> {
    fn of(state: &State) -> Self {
        let state = state.canonical();
        Self {
            cpu_milli: state.cpu_milli,
            memory_mib: state.memory_mib,
            free: std::array::from_fn(|gpu| state.free[gpu].cast_signed()),
        }
    }

    fn free_milli(&self) -> u32 {
        let free = self.free.iter();
        free.map(|free| u32::from(free.unsigned_abs())).sum()
    }

    /// How many GPUs have room, where they are enough; the last of them is the fullest.
    fn fits(&self, numbers: &Numbers) -> Option<usize> {
        if numbers.cpu_milli > self.cpu_milli || numbers.memory_mib > self.memory_mib {
            return None;
        }
        let free = self.free.iter();
        let roomy: i16 = free.map(|free| i16::from(*free >= numbers.milli)).sum();
        (roomy >= i16::from(numbers.gpus)).then_some(usize::from(roomy.cast_unsigned()))
    }

    fn take(&mut self, numbers: &Numbers, roomy: usize) {
        self.cpu_milli -= numbers.cpu_milli;
        self.memory_mib -= numbers.memory_mib;
        if numbers.gpus == 0 {
            return;
        }
        if numbers.milli.cast_unsigned() == MILLI {
            // Whole ones are the first; the rest moves up.
            let count = usize::from(numbers.gpus);
            self.free.copy_within(roomy.., roomy - count);
            self.free[GPUS - count..].fill(0);
            return;
        }
        let mut at = roomy - 1;
        let left = self.free[at] - numbers.milli;
        while at + 1 < GPUS && self.free[at + 1] > left {
            self.free[at] = self.free[at + 1];
            at += 1;
        }
        self.free[at] = left;
    }
}

#[cfg(test)]
mod tests;
