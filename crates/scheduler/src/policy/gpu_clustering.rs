use super::{Policy, Score, View, fullest};
use crate::state::{Ask, State};

/// Requests for the same number of GPUs together: nodes with only such ones, then with such ones too, then empty ones,
/// then the others; within each, those with less free.
#[derive(Debug, Clone, Copy)]
pub struct GpuClustering;

const QUARTER: i32 = 25;
/// The artifact's largest node has 8 GPUs.
const GPU_MAX: i32 = 8_000;

impl Policy for GpuClustering {
    fn name(&self) -> &'static str {
        "gpuclustering"
    }

    fn view(&self) -> View {
        View::Tagged
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        let tag = ask.tag();
        let group = match state.tags {
            _ if tag == 0 => {
                return Score { value: 0, gpu: 0 };
            }
            tags if tags == tag => 3,
            tags if tags & tag != 0 => 2,
            0 => 1,
            _ => 0,
        };
        let free = i32::try_from(state.free_milli()).unwrap_or(GPU_MAX);
        Score {
            value: QUARTER * (GPU_MAX - free) / GPU_MAX + QUARTER * group,
            gpu: fullest(state, ask),
        }
    }
}
