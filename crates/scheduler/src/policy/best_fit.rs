use super::dot_product::{CPU_MAX, GPU_MAX, percent};
use super::{Policy, Score, fullest};
use crate::state::{Ask, State};

/// The node with least left: half of that is CPU, half GPU, each by the largest node's.
#[derive(Debug, Clone, Copy)]
pub struct BestFit;

impl Policy for BestFit {
    fn name(&self) -> &'static str {
        "bestfit"
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        let cpu = f64::from(state.cpu_milli - ask.cpu_milli) / CPU_MAX * 0.5;
        let gpu = f64::from(state.free_milli() - ask.total_milli()) / GPU_MAX * 0.5;
        Score {
            value: percent(1.0 - (cpu + gpu)),
            gpu: fullest(state, ask),
        }
    }
}
