//! Files that the configuration names: each stays inside the folder it is looked up in.

use std::path::Path;

use super::{Context, Problem};
use crate::inside::stays_inside;
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_sequence_batching::initial_state::StateData;
use crate::oip::proto::model_warmup::input::InputDataType;

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    for (field, file, folder) in named(context) {
        if !file.is_empty() && !stays_inside(Path::new(file)) {
            let message = format!(
                "'{field}' of model '{}' must be a path inside the {folder} folder",
                context.name()
            );
            problems.push(Problem::new(field, message));
        }
    }
    for (index, output) in context.config.output.iter().enumerate() {
        let file = &output.label_filename;
        if !file.is_empty() && !stays_inside(Path::new(file)) {
            let message = format!(
                "label file path '{file}' for output '{}' in model '{}' is outside model directory",
                output.name,
                context.name()
            );
            problems.push(Problem::new(
                format!("output[{index}].label_filename"),
                message,
            ));
        }
    }
}

/// Field, file, and whose folder it lies in.
fn named<'a>(context: &Context<'a>) -> Vec<(String, &'a str, &'static str)> {
    let config = context.config;
    let mut named = vec![(
        "default_model_filename".to_owned(),
        config.default_model_filename.as_str(),
        "version's",
    )];
    for (key, file) in &config.cc_model_filenames {
        named.push((
            format!("cc_model_filenames[{key}].value"),
            file,
            "version's",
        ));
    }
    for (index, sample) in config.model_warmup.iter().enumerate() {
        for (input, data) in &sample.inputs {
            if let Some(InputDataType::InputDataFile(file)) = &data.input_data_type {
                let field = format!("model_warmup[{index}].inputs[{input}].input_data_file");
                named.push((field, file, "model's `warmup`"));
            }
        }
    }
    if let Some(SchedulingChoice::SequenceBatching(batching)) = &config.scheduling_choice {
        for (index, state) in batching.state.iter().enumerate() {
            for initial in &state.initial_state {
                if let Some(StateData::DataFile(file)) = &initial.state_data {
                    let field = format!("sequence_batching.state[{index}].initial_state");
                    named.push((field, file, "model's `initial_state`"));
                }
            }
        }
    }
    let operations = config.model_operations.iter();
    for (index, file) in operations
        .flat_map(|all| &all.op_library_filename)
        .enumerate()
    {
        let field = format!("model_operations.op_library_filename[{index}]");
        named.push((field, file, "model's"));
    }
    named
}
