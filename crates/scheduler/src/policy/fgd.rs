use std::collections::HashMap;

use super::dot_product::percent;
use super::{Policy, Score, View};
use crate::cluster::Cluster;
use crate::fragmentation::Fragmentation;
use crate::hash::Fast;
use crate::state::{Ask, State};
use crate::workload::Workload;

/// Fragmentation gradient descent as its artifact has it: the place that adds least to the expected fragmentation, in
/// steps of a hundredth of a sigmoid; which node is first among equals decides much.
#[derive(Debug)]
pub struct Fgd {
    fragmentation: Fragmentation,
    /// Of states met. Emptied when full.
    known: HashMap<State, f64, Fast>,
}

/// About 20 MiB.
const KNOWN_MAX: usize = 1 << 18;

impl Fgd {
    pub fn new(cluster: &Cluster, workload: &Workload) -> Self {
        Self {
            fragmentation: Fragmentation::new(cluster, workload),
            known: HashMap::default(),
        }
    }

    fn amount(&mut self, state: &State) -> f64 {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let key = State {
            tags: 0,
            memory_mib: 0,
            ..*state
        };
        let fragmentation = &self.fragmentation;
        *self
            .known
            .entry(key)
            .or_insert_with(|| fragmentation.amount(&key))
    }
}

impl Policy for Fgd {
    fn name(&self) -> &'static str {
        "fgd"
    }

    fn view(&self) -> View {
        View::Ordered
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        let before = self.amount(state);
        let mut worth = |after: &State| {
            let less = (before - self.amount(after)) / 1_000.0;
            percent(1.0 / (1.0 + (-less).exp()))
        };
        if !ask.shares() {
            return Score {
                value: worth(&ask.on_fullest(state)),
                gpu: 0,
            };
        }
        let mut best: Option<Score> = None;
        for gpu in 0..state.gpus {
            let free = state.free[usize::from(gpu)];
            if free < ask.milli {
                continue;
            }
            let value = worth(&ask.on_gpu(state, gpu.into()));
            if best.is_none_or(|best| value > best.value) {
                best = Some(Score { value, gpu });
            }
        }
        best.unwrap_or(Score { value: 0, gpu: 0 })
    }
}
