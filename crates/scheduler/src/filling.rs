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

/// Sequences of types of requests, and each type as numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filling {
    asks: Vec<Ask>,
    types: Vec<Numbers>,
    /// Indices into `types`, `length` for each sequence.
    draws: Vec<u16>,
    length: usize,
    sequences: u32,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    cpu_milli: u32,
    memory_mib: u32,
    milli: u16,
    gpus: u8,
}

impl Filling {
    /// `types` with how often each occurs.
    pub(crate) fn new(types: &[(Ask, u32)], sequences: u32, length: usize) -> Self {
        let asks: Vec<Ask> = types.iter().map(|(ask, _)| *ask).collect();
        let mut cumulated = Vec::new();
        let mut total: usize = 0;
        for (_, count) in types {
            total += *count as usize;
            cumulated.push(total);
        }
        let mut rng = Rng::new(SEED);
        let mut draw = || {
            let point = rng.below(total);
            let index = cumulated.partition_point(|upper| *upper <= point);
            u16::try_from(index).unwrap_or(0)
        };
        let count = if total == 0 {
            0
        } else {
            sequences as usize * length
        };
        Self {
            types: asks
                .iter()
                .map(|ask| Numbers {
                    cpu_milli: ask.cpu_milli,
                    memory_mib: ask.memory_mib,
                    milli: ask.milli,
                    gpus: ask.gpus,
                })
                .collect(),
            asks,
            draws: (0..count).map(|_| draw()).collect(),
            length,
            sequences,
        }
    }

    /// Thousandths of a GPU left, summed over the sequences.
    pub(crate) fn left(&self, state: &State) -> u32 {
        let start = Room::of(state);
        let allowed: Vec<Numbers> = self
            .types
            .iter()
            .zip(&self.asks)
            .map(|(numbers, ask)| {
                if ask.kinds.contains(state.kind) && start.fits(numbers).is_some() {
                    *numbers
                } else {
                    NOTHING
                }
            })
            .collect();
        let wants: Vec<Numbers> = allowed
            .iter()
            .copied()
            .filter(|n| n.gpus > 0 && n.gpus != u8::MAX)
            .collect();
        if wants.is_empty() {
            return state.free_milli() * self.sequences;
        }
        self.draws
            .chunks(self.length.max(1))
            .map(|draws| end(start, draws, &allowed, &wants))
            .sum()
    }
}

/// Asks for more than there is.
const NOTHING: Numbers = Numbers {
    cpu_milli: u32::MAX,
    memory_mib: u32::MAX,
    milli: u16::MAX,
    gpus: u8::MAX,
};

fn end(mut room: Room, draws: &[u16], allowed: &[Numbers], wants: &[Numbers]) -> u32 {
    let mut last = 0;
    for draw in draws {
        let numbers = &allowed[usize::from(*draw)];
        if numbers.cpu_milli > room.cpu_milli || numbers.memory_mib > room.memory_mib {
            continue;
        }
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
    room.free[..room.gpus]
        .iter()
        .map(|free| u32::from(*free))
        .sum()
}

/// GPUs in descending order.
#[derive(Debug, Clone, Copy)]
struct Room {
    cpu_milli: u32,
    memory_mib: u32,
    gpus: usize,
    free: [u16; GPUS_MAX],
}

impl Room {
    fn of(state: &State) -> Self {
        let state = state.canonical();
        // GPUs that are full stay so.
        let gpus = state.free().iter().take_while(|free| **free > 0).count();
        Self {
            cpu_milli: state.cpu_milli,
            memory_mib: state.memory_mib,
            gpus,
            free: state.free,
        }
    }

    /// The last of the GPUs to take it: the fullest with room.
    fn fits(&self, numbers: &Numbers) -> Option<usize> {
        if numbers.cpu_milli > self.cpu_milli || numbers.memory_mib > self.memory_mib {
            return None;
        }
        if numbers.gpus == 0 {
            return Some(0);
        }
        let room = self.free[..self.gpus]
            .iter()
            .rposition(|free| *free >= numbers.milli)?;
        (room + 1 >= usize::from(numbers.gpus)).then_some(room)
    }

    fn take(&mut self, numbers: &Numbers, at: usize) {
        self.cpu_milli -= numbers.cpu_milli;
        self.memory_mib -= numbers.memory_mib;
        if numbers.gpus == 0 {
            return;
        }
        if numbers.milli == MILLI {
            // Whole ones are the first; the rest moves up.
            let count = usize::from(numbers.gpus);
            self.free.copy_within(at + 1..self.gpus, at + 1 - count);
            self.gpus -= count;
            return;
        }
        let left = self.free[at] - numbers.milli;
        let mut at = at;
        while at + 1 < self.gpus && self.free[at + 1] > left {
            self.free[at] = self.free[at + 1];
            at += 1;
        }
        self.free[at] = left;
        if left == 0 {
            self.gpus = at;
        }
    }
}

#[cfg(test)]
mod tests;
