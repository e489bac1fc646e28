use super::{Policy, Score, fullest};
use crate::request::MILLI;
use crate::state::{Ask, State};

/// GPUs that are in use first, then free GPUs of nodes in use, then free nodes.
#[derive(Debug, Clone, Copy)]
pub struct GpuPacking;

const MAX: i32 = 100;

impl Policy for GpuPacking {
    fn name(&self) -> &'static str {
        "gpupacking"
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        Score {
            value: if ask.gpus == 0 { 0 } else { value(state, ask) },
            gpu: fullest(state, ask),
        }
    }
}

fn value(state: &State, ask: &Ask) -> i32 {
    let whole = i32::try_from(state.whole()).unwrap_or(MAX);
    if whole == i32::from(state.gpus) {
        return (MAX / 3 - whole).max(whole);
    }
    let mut used: Vec<u16> = state.free().to_vec();
    used.retain(|free| *free >= ask.milli);
    used.sort_unstable();
    used.truncate(ask.gpus.into());
    let fresh = used.iter().filter(|free| **free == MILLI).count();
    if fresh > 0 {
        let fresh = i32::try_from(fresh).unwrap_or(MAX);
        return (MAX / 2 - fresh).max(MAX / 3);
    }
    let room: i32 = used.iter().map(|free| i32::from(*free) * 100 / 1_000).sum();
    (MAX - room / 10).max(MAX / 2)
}
