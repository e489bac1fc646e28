use super::{Policy, Score, fullest};
use crate::state::{Ask, State};

/// Tetris (SIGCOMM 2014) the other way about, as the FGD artifact has it: the node whose free resources, normalised by
/// the largest node and with its GPUs added up, have the smallest dot product with the request.
#[derive(Debug, Clone, Copy)]
pub struct DotProduct;

/// The artifact's largest node: 128 cores and 8 GPUs.
pub(super) const CPU_MAX: f64 = 128_000.0;
pub(super) const GPU_MAX: f64 = 8_000.0;

impl Policy for DotProduct {
    fn name(&self) -> &'static str {
        "dotproduct"
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        let cpu = f64::from(state.cpu_milli) / CPU_MAX * (f64::from(ask.cpu_milli) / CPU_MAX);
        let gpu =
            f64::from(state.free_milli()) / GPU_MAX * (f64::from(ask.total_milli()) / GPU_MAX);
        Score {
            value: percent(1.0 - (cpu + gpu) / 2.0),
            gpu: fullest(state, ask),
        }
    }
}

/// The scheduling framework's scores are whole numbers from 0 to 100, cut off.
#[expect(clippy::cast_possible_truncation, reason = "cut off on purpose")]
pub(super) fn percent(score: f64) -> i32 {
    (score * 100.0) as i32
}
