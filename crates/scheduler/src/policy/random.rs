use super::{Choice, Policy, Score};
use crate::state::{Ask, State};

/// Any feasible node, and any GPU with room: the scheduler draws both.
#[derive(Debug, Clone, Copy)]
pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn choice(&self) -> Choice {
        Choice::Any
    }

    fn score(&mut self, _state: &State, _ask: &Ask) -> Score {
        Score { value: 0, gpu: 0 }
    }
}
