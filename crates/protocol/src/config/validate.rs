use std::path::Path;

use super::{Problem, data_type};
use crate::TensorSpec;
use crate::inside::stays_inside;
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_instance_group::Kind;
use crate::oip::proto::{ModelConfig, ModelTensorReshape};

mod model;

/// Everything that keeps this configuration from being served, in the order of the rules; empty when nothing does.
/// `inputs` and `outputs` are the model's own, batch dimension included; pass none when the model is not known yet.
pub fn validate(
    config: &ModelConfig,
    folder: &str,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in [
        name,
        model_file,
        max_batch_size,
        tensors,
        ensemble,
        instance_groups,
        unsupported,
    ] {
        rule(&Context { config, folder }, &mut problems);
    }
    if !(inputs.is_empty() && outputs.is_empty()) {
        model::compare(config, inputs, outputs, &mut problems);
    }
    problems
}

struct Context<'a> {
    config: &'a ModelConfig,
    folder: &'a str,
}

fn name(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let name = &context.config.name;
    if !name.is_empty() && name != context.folder {
        problems.push(Problem::new(
            "name",
            format!(
                "unexpected directory name '{}' for model '{name}', directory name must equal model name",
                context.folder
            ),
        ));
    }
}

/// Files are looked up in the version's folder by this name, before an engine sees them.
fn model_file(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let config = context.config;
    let by_capability = config.cc_model_filenames.iter().map(|(key, file)| {
        let field = format!("cc_model_filenames[{key}].value");
        (field, file)
    });
    let default = "default_model_filename".to_owned();
    for (field, file) in [(default, &config.default_model_filename)]
        .into_iter()
        .chain(by_capability)
    {
        if !file.is_empty() && !stays_inside(Path::new(file)) {
            let message = format!(
                "'{field}' of model '{}' must be a path inside the version's folder",
                context.folder
            );
            problems.push(Problem::new(field, message));
        }
    }
}

fn max_batch_size(context: &Context<'_>, problems: &mut Vec<Problem>) {
    if context.config.max_batch_size < 0 {
        problems.push(Problem::new(
            "max_batch_size",
            format!(
                "'max_batch_size' must be non-negative value for {}",
                context.folder
            ),
        ));
    }
}

/// An input or an output: what both have.
struct Tensor<'a> {
    /// `input` or `output`, the field and the word in messages.
    side: &'static str,
    index: usize,
    name: &'a str,
    data_type: i32,
    dims: &'a [i64],
    reshape: Option<&'a ModelTensorReshape>,
}

fn both_sides(config: &ModelConfig) -> impl Iterator<Item = Tensor<'_>> {
    let inputs = config
        .input
        .iter()
        .enumerate()
        .map(|(index, input)| Tensor {
            side: "input",
            index,
            name: &input.name,
            data_type: input.data_type,
            dims: &input.dims,
            reshape: input.reshape.as_ref(),
        });
    let outputs = config
        .output
        .iter()
        .enumerate()
        .map(|(index, output)| Tensor {
            side: "output",
            index,
            name: &output.name,
            data_type: output.data_type,
            dims: &output.dims,
            reshape: output.reshape.as_ref(),
        });
    inputs.chain(outputs)
}

fn tensors(context: &Context<'_>, problems: &mut Vec<Problem>) {
    for tensor in both_sides(context.config) {
        let field = format!("{}[{}]", tensor.side, tensor.index);
        let subject = format!("model {} '{}'", tensor.side, tensor.name);
        let mut report = |field: String, message: String| {
            problems.push(Problem::new(
                field,
                format!("{message} for {}", context.folder),
            ));
        };
        if tensor.name.is_empty() {
            report(
                format!("{field}.name"),
                format!("model {} must specify 'name'", tensor.side),
            );
        }
        if data_type(tensor.data_type).is_none() {
            report(
                format!("{field}.data_type"),
                format!("{subject} must specify 'data_type'"),
            );
        }
        if tensor.dims.is_empty() {
            report(
                format!("{field}.dims"),
                format!("{subject} must specify 'dims'"),
            );
        }
        let reshape = tensor.reshape.map(|reshape| reshape.shape.as_slice());
        for (dims, part) in [(Some(tensor.dims), "dims"), (reshape, "reshape.shape")] {
            let bad = |dim: &i64| *dim < 1 && *dim != -1;
            if let Some(index) = dims.and_then(|dims| dims.iter().position(bad)) {
                report(
                    format!("{field}.{part}[{index}]"),
                    format!(
                        "{subject} dimension must be integer >= 1, or -1 to indicate a variable-size dimension"
                    ),
                );
            }
        }
    }
}

fn instance_groups(context: &Context<'_>, problems: &mut Vec<Problem>) {
    if super::ensemble::steps(context.config).is_some() {
        return;
    }
    for (index, group) in context.config.instance_group.iter().enumerate() {
        if group.kind() == Kind::Gpu {
            problems.push(Problem::new(
                format!("instance_group[{index}].kind"),
                format!(
                    "instance group {} of model {} has kind KIND_GPU but no GPUs are available; set kind: KIND_CPU",
                    group.name, context.folder
                ),
            ));
        }
    }
}

fn ensemble(context: &Context<'_>, problems: &mut Vec<Problem>) {
    super::ensemble::alone(context.config, context.folder, problems);
}

/// Fields that change what a client sees and that nothing here does yet: refused by name, never ignored.
fn unsupported(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let config = context.config;
    let scheduling = config.scheduling_choice.as_ref();
    let asked = [
        (
            "sequence_batching",
            matches!(scheduling, Some(SchedulingChoice::SequenceBatching(_))),
        ),
        ("batch_input", !config.batch_input.is_empty()),
        ("batch_output", !config.batch_output.is_empty()),
        ("model_operations", config.model_operations.is_some()),
        (
            "model_repository_agents",
            config.model_repository_agents.is_some(),
        ),
    ];
    for (field, asked) in asked {
        if asked {
            problems.push(Problem::new(
                field,
                format!(
                    "`{field}` of model '{}' is not supported by this version",
                    context.folder
                ),
            ));
        }
    }
}
