//! What the configuration says against what the model has.

use super::{Problem, Tensor, both_sides};
use crate::TensorSpec;
use crate::config::{data_type, proto_data_type};
use crate::oip::proto::ModelConfig;

pub(super) fn compare(
    config: &ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    problems: &mut Vec<Problem>,
) {
    input_count(config, inputs, problems);
    if fixed_batch(config, inputs, outputs, problems) {
        return;
    }
    for tensor in both_sides(config) {
        let model = if tensor.side == "input" {
            inputs
        } else {
            outputs
        };
        match model.iter().find(|spec| spec.name == tensor.name) {
            None => unknown_name(&tensor, model, problems),
            Some(spec) => {
                element_type(config, &tensor, spec, problems);
                dimensions(config, &tensor, spec, problems);
            }
        }
    }
}

/// Optional inputs are the model's initializers: they may be named or left out.
fn input_count(config: &ModelConfig, inputs: &[TensorSpec], problems: &mut Vec<Problem>) {
    let required = config.input.iter().filter(|input| !input.optional).count();
    if !config.input.is_empty() && required != inputs.len() {
        problems.push(Problem::new(
            "input",
            format!(
                "unable to load model '{}', configuration expects {required} inputs, model provides {}",
                config.name,
                inputs.len()
            ),
        ));
    }
}

/// With batching, every tensor's first dimension is the batch; one that the model fixes cannot be. Reported once, with
/// both ways out, instead of as a rank error for every tensor.
fn fixed_batch(
    config: &ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    problems: &mut Vec<Problem>,
) -> bool {
    if config.max_batch_size <= 0 {
        return false;
    }
    let fixed = inputs
        .iter()
        .map(|spec| ("input", spec))
        .chain(outputs.iter().map(|spec| ("output", spec)))
        .find(|(_, spec)| spec.shape.first() != Some(&-1));
    let Some((side, spec)) = fixed else {
        return false;
    };
    let what = spec.shape.first().map_or_else(
        || "has no dimensions".to_owned(),
        |first| format!("has a first dimension fixed to {first}"),
    );
    problems.push(Problem::new(
        "max_batch_size",
        format!(
            "model '{}' cannot be batched: {side} '{}' {what} (shape {}); set max_batch_size: 0 and give the full shape in dims, or export the model with a dynamic first axis",
            config.name,
            spec.name,
            shown(&spec.shape)
        ),
    ));
    true
}

fn unknown_name(tensor: &Tensor<'_>, model: &[TensorSpec], problems: &mut Vec<Problem>) {
    let allowed: Vec<_> = model.iter().map(|spec| spec.name.as_str()).collect();
    problems.push(Problem::new(
        format!("{}[{}].name", tensor.side, tensor.index),
        format!(
            "unexpected inference {side} '{}', allowed {side}s are: {}",
            tensor.name,
            allowed.join(", "),
            side = tensor.side
        ),
    ));
}

fn element_type(
    config: &ModelConfig,
    tensor: &Tensor<'_>,
    spec: &TensorSpec,
    problems: &mut Vec<Problem>,
) {
    // A missing type has been reported by the rules before.
    let Some(configured) = data_type(tensor.data_type).filter(|dtype| *dtype != spec.dtype) else {
        return;
    };
    problems.push(Problem::new(
        format!("{}[{}].data_type", tensor.side, tensor.index),
        format!(
            "unable to load model '{}', configuration expects datatype {} for {} '{}', model provides {}",
            config.name,
            proto_data_type(configured).as_str_name(),
            tensor.side,
            tensor.name,
            proto_data_type(spec.dtype).as_str_name()
        ),
    ));
}

/// Triton's two messages: the ranks differ, or a fixed dimension does.
fn dimensions(
    config: &ModelConfig,
    tensor: &Tensor<'_>,
    spec: &TensorSpec,
    problems: &mut Vec<Problem>,
) {
    let batch = config.max_batch_size > 0;
    let explicit = tensor
        .reshape
        .map_or(tensor.dims, |reshape| reshape.shape.as_slice());
    // The stand-in for "no dimensions", which only a reshape could say.
    if !batch && spec.shape.is_empty() && explicit == [1] {
        return;
    }
    let full: Vec<_> = batch
        .then_some(-1)
        .into_iter()
        .chain(explicit.iter().copied())
        .collect();
    let fits = full.len() == spec.shape.len()
        && full
            .iter()
            .zip(&spec.shape)
            .all(|(ours, model)| ours == model || *ours == -1 || *model == -1);
    if fits {
        return;
    }
    let subject = format!("model '{}', tensor '{}'", config.name, tensor.name);
    let model = shown(&spec.shape);
    let rank = spec.shape.len();
    let complete = shown(&full);
    let message = match (full.len() == rank, batch) {
        (true, _) => format!(
            "{subject}: the model expects {rank} dimensions (shape {model}) but the model configuration specifies shape {complete}"
        ),
        (false, true) => format!(
            "{subject}: the model expects {rank} dimensions (shape {model}) but the model configuration specifies {} dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete shape {complete})",
            full.len()
        ),
        (false, false) => format!(
            "{subject}: the model expects {rank} dimensions (shape {model}) but the model configuration specifies {} dimensions (shape {complete})",
            full.len()
        ),
    };
    problems.push(Problem::new(
        format!("{}[{}].dims", tensor.side, tensor.index),
        message,
    ));
}

fn shown(shape: &[i64]) -> String {
    let dims: Vec<_> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}
