//! Warm-up samples: each input has a type, fixed dimensions and data.

use super::{Context, Problem};
use crate::config::data_type;
use crate::oip::proto::ModelWarmup;
use crate::oip::proto::model_warmup::Input;

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    for (index, sample) in context.config.model_warmup.iter().enumerate() {
        for (name, input) in &sample.inputs {
            for (part, message) in faults(name, input) {
                let field = format!("model_warmup[{index}].inputs[{name}]{part}");
                problems.push(Problem::new(field, message));
            }
        }
        batch(context, index, sample, problems);
    }
}

fn faults(name: &str, input: &Input) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    if data_type(input.data_type).is_none() {
        let message = format!("warmup setting expects input '{name}' to have data_type set");
        faults.push((".data_type", message));
    }
    if input.dims.iter().any(|dim| *dim < 0) {
        let message = format!(
            "warmup setting expects all variable-size dimensions are specified for input '{name}'"
        );
        faults.push((".dims", message));
    }
    if input.input_data_type.is_none() {
        let message = format!("warmup setting expects input '{name}' to have input_data_type set");
        faults.push(("", message));
    }
    faults
}

/// More requests at once than the model takes in a batch can never run.
fn batch(context: &Context<'_>, index: usize, sample: &ModelWarmup, problems: &mut Vec<Problem>) {
    let largest = u32::try_from(context.config.max_batch_size.max(1)).unwrap_or(1);
    // Without a batch size the largest is not known before the model is.
    let known = context.config.max_batch_size > 0;
    if known && sample.batch_size > largest {
        let message = format!(
            "warmup sample '{}' has batch_size {}, but max_batch_size of model '{}' is {largest}",
            sample.name,
            sample.batch_size,
            context.name()
        );
        let field = format!("model_warmup[{index}].batch_size");
        problems
            .push(Problem::new(field, message).fix(format!("set batch_size: {largest} or less")));
    }
}
