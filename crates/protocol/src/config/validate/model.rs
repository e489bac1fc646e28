//! What the configuration says against what an ONNX model has, in the words of Triton's backend for them.

use super::Problem;
use super::tensors::{Tensor, both_sides};
use crate::config::normalize::ONNX_BACKEND;
use crate::config::{data_type, proto_data_type};
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_sequence_batching::control::Kind;
use crate::oip::proto::{DataType as ProtoDataType, ModelConfig, ModelSequenceBatching};
use crate::{DataType, TensorSpec};

/// Where a completed configuration contradicts the model; empty for backends whose models are what the configuration
/// says. `inputs` and `outputs` are the model's own, batch dimension included.
pub fn against_model(
    config: &ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.backend != ONNX_BACKEND {
        return problems;
    }
    input_count(config, inputs, &mut problems);
    if let Some(batching) = sequence(config) {
        controls(config, batching, inputs, &mut problems);
    }
    for tensor in both_sides(config) {
        let model = if tensor.side == "input" {
            inputs
        } else {
            outputs
        };
        match model.iter().find(|spec| spec.name == tensor.name) {
            // An initializer of the graph, which may be named or left out.
            None if tensor.optional => {}
            None => unknown_name(&tensor, model, &mut problems),
            Some(spec) => compare(config, &tensor, spec, &mut problems),
        }
    }
    problems
}

fn sequence(config: &ModelConfig) -> Option<&ModelSequenceBatching> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(batching)) => Some(batching),
        _ => None,
    }
}

/// A model's inputs come from requests, from the batch, from the sequence's signals and from its states.
fn input_count(config: &ModelConfig, inputs: &[TensorSpec], problems: &mut Vec<Problem>) {
    let required = config.input.iter().filter(|input| !input.optional).count();
    let sequence = sequence(config).map_or(0, |batching| {
        let controls = batching
            .control_input
            .iter()
            .map(|input| input.control.len());
        controls.sum::<usize>() + batching.state.len()
    });
    let expected = required + config.batch_input.len() + sequence;
    if expected == inputs.len() {
        return;
    }
    let names: Vec<_> = inputs.iter().map(|spec| spec.name.as_str()).collect();
    let message = format!(
        "unable to load model '{}', configuration expects {expected} inputs, model provides {}",
        config.name,
        inputs.len()
    );
    let fix = format!("the model's inputs are: {}", names.join(", "));
    problems.push(Problem::new("input", message).fix(fix));
}

/// Each signal is an input of the model, of one element and of the type that its values have.
fn controls(
    config: &ModelConfig,
    batching: &ModelSequenceBatching,
    inputs: &[TensorSpec],
    problems: &mut Vec<Problem>,
) {
    for (index, control) in batching.control_input.iter().enumerate() {
        let name = &control.name;
        let mut report = |message: String| {
            let field = format!("sequence_batching.control_input[{index}].name");
            problems.push(Problem::new(field, message));
        };
        let Some(spec) = inputs.iter().find(|spec| spec.name == *name) else {
            report(format!(
                "configuration specified sequence control '{name}', but model does not provide that input"
            ));
            continue;
        };
        let batch = usize::from(config.max_batch_size > 0);
        let dims = spec.shape.get(batch..).unwrap_or_default();
        if dims != [1] {
            report(format!(
                "unable to load model '{}', sequence control '{name}' in model has dims {} but dims [1] is expected",
                config.name,
                shown(dims)
            ));
        }
        for control in &control.control {
            let dtype = match control.kind() {
                Kind::ControlSequenceCorrid => control.data_type(),
                _ if !control.int32_false_true.is_empty() => ProtoDataType::TypeInt32,
                _ if !control.fp32_false_true.is_empty() => ProtoDataType::TypeFp32,
                _ => ProtoDataType::TypeBool,
            };
            if dtype != proto_data_type(spec.dtype) {
                report(format!(
                    "unable to load model '{}', sequence control '{name}', the model expects data-type {} but the model configuration specifies data-type {}",
                    config.name,
                    onnx_name(spec.dtype),
                    dtype.as_str_name()
                ));
            }
        }
    }
}

/// ONNX's own names of its types.
fn onnx_name(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Fp16 => "FLOAT16",
        DataType::Fp32 => "FLOAT",
        DataType::Fp64 => "DOUBLE",
        DataType::Bf16 => "BFLOAT16",
        DataType::Bytes => "STRING",
        other => other.name(),
    }
}

fn unknown_name(tensor: &Tensor<'_>, model: &[TensorSpec], problems: &mut Vec<Problem>) {
    let mut allowed: Vec<_> = model.iter().map(|spec| spec.name.as_str()).collect();
    allowed.sort_unstable();
    let message = format!(
        "unexpected inference {side} '{}', allowed {side}s are: {}",
        tensor.name,
        allowed.join(", "),
        side = tensor.side
    );
    let fix = base::nearest(tensor.name, allowed.iter().copied())
        .map(|near| format!("did you mean '{near}'?"));
    let problem = Problem::new(format!("{}[{}].name", tensor.side, tensor.index), message);
    problems.push(Problem { fix, ..problem });
}

fn compare(
    config: &ModelConfig,
    tensor: &Tensor<'_>,
    spec: &TensorSpec,
    problems: &mut Vec<Problem>,
) {
    let name = &config.name;
    let mut report = |part: &str, message: String, fix: String| {
        let field = format!("{}[{}].{part}", tensor.side, tensor.index);
        problems.push(Problem::new(field, message).fix(fix));
    };
    if tensor.optional && config.max_batch_size != 0 {
        report(
            "optional",
            format!(
                "unable to load model '{name}', optional input '{}' is not supported for models that support batching",
                tensor.name
            ),
            "set max_batch_size: 0, or optional: false".to_owned(),
        );
    }
    // A missing type has been reported by the rules before.
    if data_type(tensor.data_type).is_some_and(|dtype| dtype != spec.dtype) {
        let configured = ProtoDataType::try_from(tensor.data_type).unwrap_or_default();
        report(
            "data_type",
            format!(
                "unable to load model '{name}', configuration expects datatype {} for {} '{}', model provides TYPE_{}",
                configured.as_str_name(),
                tensor.side,
                tensor.name,
                spec.dtype.name()
            ),
            format!(
                "set data_type: {}",
                proto_data_type(spec.dtype).as_str_name()
            ),
        );
    }
    let split = config.batch_output.iter().any(|output| {
        output
            .target_name
            .iter()
            .any(|target| target == tensor.name)
    });
    // How a split output looks to a request does not follow from the model.
    if tensor.side == "output" && split {
        return;
    }
    if let Some((message, fix)) = dimensions(config, tensor, spec) {
        report("dims", message, fix);
    }
}

/// Why the dimensions do not fit, and what would.
fn dimensions(
    config: &ModelConfig,
    tensor: &Tensor<'_>,
    spec: &TensorSpec,
) -> Option<(String, String)> {
    let name = &config.name;
    let model = shown(&spec.shape);
    let batch = config.max_batch_size > 0;
    let explicit = tensor
        .reshape
        .map_or(tensor.dims, |reshape| reshape.shape.as_slice());
    if tensor.ragged {
        // The two spaces are Triton's.
        let message = format!(
            "unable to load model '{name}', configuration expects model provides input with shape [-1]  for ragged input '{}', model provides {model}",
            tensor.name
        );
        return (spec.shape != [-1]).then(|| (message, "set allow_ragged_batch: false".to_owned()));
    }
    let subject = format!("model '{name}', tensor '{}'", tensor.name);
    if !batch && spec.shape.is_empty() {
        // One element stands for "no dimensions", which a configuration cannot say.
        let message = format!(
            "unable to load model '{name}', scalar tensor '{}', should only provide 1 in the model configuration when the model doesn't support batching. Model configuration provided: {}.",
            tensor.name,
            shown(explicit)
        );
        let ones = explicit.iter().all(|dim| *dim == 1);
        return (!ones).then(|| (message, "set dims: [ 1 ]".to_owned()));
    }
    if batch && spec.shape.first() != Some(&-1) {
        return Some((
            format!(
                "{subject}: for the model to support batching the shape should have at least 1 dimension and the first dimension must be -1; but shape expected by the model is {model}"
            ),
            fixed_batch(tensor, spec),
        ));
    }
    let full = batch
        .then_some(-1)
        .into_iter()
        .chain(explicit.iter().copied());
    let full: Vec<_> = full.collect();
    // A variable dimension of the model takes any; a fixed one only itself.
    let fits = full.len() == spec.shape.len()
        && full
            .iter()
            .zip(&spec.shape)
            .all(|(ours, model)| ours == model || *model == -1);
    if fits {
        return None;
    }
    let count = full.len();
    let complete = shown(&full);
    let specified = if batch {
        format!(
            "{count} dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete shape {complete})"
        )
    } else {
        format!("{count} dimensions (shape {complete})")
    };
    let message = format!(
        "{subject}: the model expects {} dimensions (shape {model}) but the model configuration specifies {specified}",
        spec.shape.len()
    );
    let wanted = spec.shape.get(usize::from(batch)..).unwrap_or_default();
    let fix = match wanted {
        [] => "set dims: [ 1 ] and reshape { shape: [ ] }".to_owned(),
        wanted => format!("set dims: {}", shown(wanted)),
    };
    Some((message, fix))
}

fn fixed_batch(tensor: &Tensor<'_>, spec: &TensorSpec) -> String {
    let (side, name) = (tensor.side, tensor.name);
    match spec.shape.first() {
        None => format!(
            "{side} '{name}' has no dimensions: set max_batch_size: 0, or export the model with a batch axis"
        ),
        Some(first) => format!(
            "{side} '{name}' has its first dimension fixed at {first}: set max_batch_size: 0 and dims: {}, or re-export with a dynamic first axis",
            shown(&spec.shape)
        ),
    }
}

fn shown(shape: &[i64]) -> String {
    let dims: Vec<_> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}
