//! The one list of what no part of kapok does yet: refused by name, never ignored. Whoever builds a part takes its line
//! away.

use std::path::Path;

use super::Problem;
use crate::inside::stays_inside;
use crate::oip::proto::ModelConfig;
use crate::oip::proto::model_config::SchedulingChoice;

pub(super) fn unsupported(config: &ModelConfig, name: &str, problems: &mut Vec<Problem>) {
    let mut refuse = |field: String, fix: &str| {
        let message = format!("`{field}` of model '{name}' is not supported by this version");
        problems.push(Problem::new(field, message).fix(fix));
    };
    let sequences = matches!(
        config.scheduling_choice,
        Some(SchedulingChoice::SequenceBatching(_))
    );
    let policy = config.model_transaction_policy.as_ref();
    if sequences || policy.is_some_and(|policy| policy.decoupled) {
        let fix = "remove it; only the dynamic batcher makes ragged batches";
        for (index, input) in config.input.iter().enumerate() {
            if input.allow_ragged_batch {
                refuse(format!("input[{index}].allow_ragged_batch"), fix);
            }
        }
        for (there, field) in [
            (!config.batch_input.is_empty(), "batch_input"),
            (!config.batch_output.is_empty(), "batch_output"),
        ] {
            if there {
                refuse(field.to_owned(), fix);
            }
        }
    }
    for (index, group) in config.instance_group.iter().enumerate() {
        if !group.secondary_devices.is_empty() {
            let field = format!("instance_group[{index}].secondary_devices");
            refuse(field, "remove it");
        }
    }
    problems.extend(foreign_runtime(config, name));
}

/// No library of Triton's backends is looked for, so none is found. The name of the one that Triton itself would load
/// says nothing new.
fn foreign_runtime(config: &ModelConfig, name: &str) -> Option<Problem> {
    let runtime = &config.runtime;
    if runtime.is_empty() || *runtime == format!("libtriton_{}.so", config.backend) {
        return None;
    }
    let message = if runtime == "model.py" {
        format!(
            "unable to find Python backend based backend library '{runtime}' for model '{name}'"
        )
    } else if stays_inside(Path::new(runtime)) {
        format!("unable to find backend library '{runtime}' for model '{name}'")
    } else {
        format!(
            "backend library name '{runtime}' escapes backend directory, for model '{name}', check model config runtime field"
        )
    };
    let fix = "remove it; `engine` in kapok.toml chooses the engine";
    Some(Problem::new("runtime", message).fix(fix))
}
