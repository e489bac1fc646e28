//! The rules of ensembles, in Triton's words: what the configuration says alone, and what it says of its members.

mod graph;
mod members;

pub(super) use graph::alone;
pub use members::{Member, check_members};

use crate::oip::proto::ModelConfig;
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_ensembling::Step;

/// Triton's name for what runs an ensemble.
pub(super) const PLATFORM: &str = "ensemble";

/// The steps of an ensemble; none when the model is none.
pub fn steps(config: &ModelConfig) -> Option<&[Step]> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(ensemble)) => Some(&ensemble.step),
        _ => None,
    }
}

fn step_field(index: usize) -> String {
    format!("ensemble_scheduling.step[{index}]")
}
