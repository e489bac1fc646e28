//! Inputs and outputs by themselves: names, types, dimensions and what they are reshaped to.

use super::{Context, Problem};
use crate::config::data_type;
use crate::oip::proto::model_input::Format;
use crate::oip::proto::{ModelConfig, ModelTensorReshape};

/// An input or an output: what both have.
pub(super) struct Tensor<'a> {
    /// `input` or `output`, the field and the word in messages.
    pub(super) side: &'static str,
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) data_type: i32,
    pub(super) dims: &'a [i64],
    pub(super) reshape: Option<&'a ModelTensorReshape>,
    pub(super) optional: bool,
    pub(super) ragged: bool,
    shape_tensor: bool,
    non_linear: bool,
}

pub(super) fn both_sides(config: &ModelConfig) -> impl Iterator<Item = Tensor<'_>> {
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
            optional: input.optional,
            ragged: input.allow_ragged_batch,
            shape_tensor: input.is_shape_tensor,
            non_linear: input.is_non_linear_format_io,
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
            optional: false,
            ragged: false,
            shape_tensor: output.is_shape_tensor,
            non_linear: output.is_non_linear_format_io,
        });
    inputs.chain(outputs)
}

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    for tensor in both_sides(context.config) {
        let mut report = |part: &str, message: String, fix: &str| {
            let field = format!("{}[{}]{part}", tensor.side, tensor.index);
            let message = format!("{message} for {}", context.name());
            problems.push(Problem::new(field, message).fix(fix));
        };
        basics(&tensor, &mut report);
        if tensor.reshape.is_some() {
            reshape(&tensor, context.config.max_batch_size, &mut report);
        }
        device_only(&tensor, &context.config.platform, &mut report);
    }
    for (index, input) in context.config.input.iter().enumerate() {
        if input.format() != Format::None && input.dims.len() != 3 {
            let message = format!(
                "model input NHWC/NCHW require 3 dims for {}",
                context.name()
            );
            problems.push(
                Problem::new(format!("input[{index}].format"), message)
                    .fix("give height, width and channels in dims, or leave `format` out"),
            );
        }
    }
}

type Report<'a> = dyn FnMut(&str, String, &str) + 'a;

fn subject(tensor: &Tensor<'_>) -> String {
    format!("model {} '{}'", tensor.side, tensor.name)
}

fn basics(tensor: &Tensor<'_>, report: &mut Report<'_>) {
    let subject = subject(tensor);
    if tensor.name.is_empty() {
        let message = format!("model {} must specify 'name'", tensor.side);
        report(".name", message, "name the model's tensor");
    }
    if data_type(tensor.data_type).is_none() {
        let message = format!("{subject} must specify 'data_type'");
        report(".data_type", message, "name its type, such as TYPE_FP32");
    }
    if tensor.dims.is_empty() {
        let fix = "give its dimensions, without the batch; for none, dims: [ 1 ] and reshape { shape: [ ] }";
        report(".dims", format!("{subject} must specify 'dims'"), fix);
    }
    if let Some(index) = bad_dimension(tensor.dims) {
        report(
            &format!(".dims[{index}]"),
            format!(
                "{subject} dimension must be integer >= 1, or -1 to indicate a variable-size dimension"
            ),
            "use -1 for a size that requests decide",
        );
    }
}

fn bad_dimension(dims: &[i64]) -> Option<usize> {
    dims.iter().position(|dim| *dim < 1 && *dim != -1)
}

/// A reshape keeps the elements: as many of them, and the same ones between variable dimensions.
fn reshape(tensor: &Tensor<'_>, max_batch_size: i32, report: &mut Report<'_>) {
    let (subject, dims) = (subject(tensor), tensor.dims);
    let shape = tensor.reshape.map_or(&[][..], |reshape| &reshape.shape);
    if shape.is_empty() && max_batch_size == 0 {
        report(
            ".reshape",
            format!(
                "{subject} cannot have empty reshape for non-batching model as scalar tensors are not supported"
            ),
            "remove `reshape`, or give it a shape",
        );
    }
    if let Some(index) = bad_dimension(shape) {
        report(
            &format!(".reshape.shape[{index}]"),
            format!(
                "{subject} reshape dimensions must be integer >= 1, or -1 to indicate a variable-size dimension"
            ),
            "use -1 for a size that requests decide",
        );
    }
    if dims.is_empty() || bad_dimension(dims).is_some() || bad_dimension(shape).is_some() {
        return;
    }
    let (from, to) = (elements(dims), elements(shape));
    let emptied = to == Some(0) && from == Some(1);
    let fix = "the product of the fixed sizes on each side of every -1 must be the same";
    if from != to && !emptied {
        report(
            ".reshape",
            format!("{subject} has different size for dims and reshape"),
            fix,
        );
    } else if from.is_none() {
        let (from, to) = (runs(dims), runs(shape));
        if from.len() != to.len() {
            let message = format!(
                "{subject} has different number of variable-size dimensions for dims and reshape"
            );
            report(".reshape", message, fix);
        } else if from != to {
            report(
                ".reshape",
                format!("{subject} has different size for dims and reshape"),
                fix,
            );
        }
    }
}

/// None when a dimension is variable; no dimensions are no elements, as Triton counts them.
fn elements(dims: &[i64]) -> Option<i128> {
    if dims.is_empty() {
        return Some(0);
    }
    if dims.contains(&-1) {
        return None;
    }
    Some(
        dims.iter()
            .fold(1, |product, dim| product_of(product, *dim)),
    )
}

/// The products between variable dimensions.
fn runs(dims: &[i64]) -> Vec<i128> {
    let mut runs = vec![1];
    for dim in dims {
        match (dim, runs.last_mut()) {
            (-1, _) | (_, None) => runs.push(1),
            (dim, Some(run)) => *run = product_of(*run, *dim),
        }
    }
    runs
}

/// Beyond any memory, all products are equal.
fn product_of(product: i128, dim: i64) -> i128 {
    product.saturating_mul(i128::from(dim))
}

fn device_only(tensor: &Tensor<'_>, platform: &str, report: &mut Report<'_>) {
    let on_device = platform == "tensorrt_plan";
    if tensor.shape_tensor && !on_device {
        let message = "shape tensors are only supported for TensorRT platform".to_owned();
        report(".is_shape_tensor", message, "remove `is_shape_tensor`");
    }
    if tensor.non_linear {
        let message = if !on_device {
            "Non-linear IO format is only supported for the TensorRT platform".to_owned()
        } else if tensor.dims.len() != 3 {
            format!("Non-linear IO format {} requires 3 dims", tensor.side)
        } else {
            return;
        };
        report(
            ".is_non_linear_format_io",
            message,
            "remove `is_non_linear_format_io`",
        );
    }
}
