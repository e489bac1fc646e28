use std::collections::{BTreeMap, BTreeSet};

use super::super::Problem;
use super::{PLATFORM, step_field, steps};
use crate::oip::proto::ModelConfig;
use crate::oip::proto::model_ensembling::Step;

/// What is wrong with an ensemble whatever its members are.
pub(in super::super) fn alone(config: &ModelConfig, name: &str, problems: &mut Vec<Problem>) {
    match steps(config) {
        Some(steps) => problems.extend(scheduling(config, name, steps).err()),
        None if config.platform == PLATFORM => problems.push(Problem::new(
            "platform",
            format!(
                "ensemble scheduling must be set for ensemble {name} whose platform is {PLATFORM}"
            ),
        )),
        None => {}
    }
}

fn scheduling(config: &ModelConfig, name: &str, steps: &[Step]) -> Result<(), Problem> {
    let refuse = |field: &str, message: String| Err(Problem::new(field, message));
    if config.platform != PLATFORM {
        return refuse(
            "ensemble_scheduling",
            format!(
                "ensemble scheduling cannot be set for model '{name}' whose platform is not {PLATFORM}"
            ),
        );
    }
    if !config.instance_group.is_empty() {
        return refuse(
            "instance_group",
            format!("instance group should not be specified for ensemble '{name}'"),
        );
    }
    if config.optimization.is_some() {
        return refuse(
            "optimization",
            format!("optimization should not be specified for ensemble '{name}'"),
        );
    }
    if !config.model_warmup.is_empty() {
        return refuse(
            "model_warmup",
            format!("model_warmup can not be specified for ensemble '{name}'"),
        );
    }
    if steps.is_empty() {
        return refuse(
            "ensemble_scheduling",
            format!("must specify 'step' for ensemble '{name}'"),
        );
    }
    flow(config, name, steps)
}

/// An ensemble's tensors: each is given by a client or written by one step, and each is read or answered.
fn flow(config: &ModelConfig, name: &str, steps: &[Step]) -> Result<(), Problem> {
    let writers = writers(name, steps)?;
    let read: BTreeSet<&str> = steps
        .iter()
        .flat_map(|step| step.input_map.values().map(String::as_str))
        .collect();
    let mentioned = |tensor: &str| read.contains(tensor) || writers.contains_key(tensor);
    for (index, input) in config.input.iter().enumerate() {
        if !mentioned(&input.name) {
            return Err(Problem::new(
                format!("input[{index}]"),
                format!(
                    "ensemble input '{}' for ensemble {name}' is not used",
                    input.name
                ),
            ));
        }
    }
    let ready = reachable(config, steps);
    for (index, output) in config.output.iter().enumerate() {
        let problem = if !mentioned(&output.name) {
            format!(
                "ensemble output '{}' for ensemble {name}' is not used",
                output.name
            )
        } else if !ready.contains(output.name.as_str()) {
            format!(
                "output '{}' for ensemble '{name}' is not written",
                output.name
            )
        } else {
            continue;
        };
        return Err(Problem::new(format!("output[{index}]"), problem));
    }
    let answered = |tensor: &str| config.output.iter().any(|output| output.name == tensor);
    for (index, step) in steps.iter().enumerate() {
        let unused = |tensor: &&String| {
            let tensor = tensor.as_str();
            let used = ready.contains(tensor) && read.contains(tensor);
            !(answered(tensor) || used)
        };
        let mut tensors = step.input_map.values().chain(step.output_map.values());
        if let Some(tensor) = tensors.find(unused) {
            return Err(Problem::new(
                step_field(index),
                format!("ensemble tensor '{tensor}' is unused in ensemble '{name}'"),
            ));
        }
    }
    Ok(())
}

/// Which step writes each tensor; the steps' own fields are checked on the way.
fn writers<'a>(name: &str, steps: &'a [Step]) -> Result<BTreeMap<&'a str, usize>, Problem> {
    let mut writers = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let missing = [
            ("model_name", step.model_name.is_empty()),
            ("input_map", step.input_map.is_empty()),
            ("output_map", step.output_map.is_empty()),
        ];
        if let Some((field, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            return Err(Problem::new(
                step_field(index),
                format!("must specify '{field}' in step {index} of ensemble '{name}'"),
            ));
        }
        for tensor in step.output_map.values() {
            if writers.insert(tensor.as_str(), index).is_some() {
                return Err(Problem::new(
                    step_field(index),
                    format!(
                        "ensemble tensor '{tensor}' can appear in an output map only once for ensemble '{name}' step {index}"
                    ),
                ));
            }
        }
    }
    Ok(writers)
}

/// What can be computed from the inputs; steps in a cycle cannot.
fn reachable<'a>(config: &'a ModelConfig, steps: &'a [Step]) -> BTreeSet<&'a str> {
    let inputs = config.input.iter().map(|input| input.name.as_str());
    let mut ready: BTreeSet<&str> = inputs.collect();
    let mut left: Vec<&Step> = steps.iter().collect();
    loop {
        let before = left.len();
        left.retain(|step| {
            let runs = step
                .input_map
                .values()
                .all(|tensor| ready.contains(tensor.as_str()));
            if runs {
                ready.extend(step.output_map.values().map(String::as_str));
            }
            !runs
        });
        if left.len() == before {
            return ready;
        }
    }
}
