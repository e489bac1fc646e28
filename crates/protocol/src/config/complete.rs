//! What Triton asks an ONNX model for when its file does not describe both sides.

use super::normalize::{NODE_BACKEND, ONNX_BACKEND, scheduling};
use super::{Problem, proto_data_type};
use crate::TensorSpec;
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::{
    ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput, ModelTensorReshape,
};

/// What Triton's `default-max-batch-size` is when its command line does not say.
pub const DEFAULT_MAX_BATCH_SIZE: u32 = 4;

/// Completes a normalised configuration from the model's own inputs and outputs, batch dimension included. `batch_max` is
/// for models that batch and do not say how much; Triton takes 0 for 1 here.
pub fn complete(
    config: &mut ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    batch_max: u32,
) -> Result<(), Problem> {
    let open = config.input.is_empty() && config.batch_input.is_empty() || config.output.is_empty();
    if !open {
        return Ok(());
    }
    match config.backend.as_str() {
        ONNX_BACKEND => batching(config, inputs, outputs, batch_max)?,
        // What an open dimension of a library means, only its author knows.
        NODE_BACKEND => {}
        _ => return Ok(()),
    }
    tensors(config, inputs, outputs);
    scheduling(config);
    Ok(())
}

/// A model batches when the first dimension of everything is left to the request.
fn batching(
    config: &mut ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    batch_max: u32,
) -> Result<(), Problem> {
    let batches = inputs
        .iter()
        .chain(outputs)
        .all(|tensor| tensor.shape.first() == Some(&-1));
    if !batches {
        return if config.max_batch_size == 0 {
            Ok(())
        } else {
            Err(Problem::new(
                "max_batch_size",
                format!(
                    "autofill failed for model '{}': model does not support batching while non-zero max_batch_size is specified",
                    config.name
                ),
            )
            .fix("set max_batch_size: 0, or export the model with a dynamic first axis"))
        };
    }
    if config.max_batch_size == 0 {
        config.max_batch_size = i32::try_from(batch_max.max(1)).unwrap_or(i32::MAX);
    }
    if config.max_batch_size > 1 && config.scheduling_choice.is_none() {
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(
            ModelDynamicBatching::default(),
        ));
    }
    Ok(())
}

fn tensors(config: &mut ModelConfig, inputs: &[TensorSpec], outputs: &[TensorSpec]) {
    let batch = config.max_batch_size > 0;
    if config.input.is_empty() && config.batch_input.is_empty() {
        config.input = inputs
            .iter()
            .map(|spec| {
                let (dims, reshape) = dims(spec, batch);
                ModelInput {
                    name: spec.name.clone(),
                    data_type: proto_data_type(spec.dtype).into(),
                    dims,
                    reshape,
                    ..ModelInput::default()
                }
            })
            .collect();
    }
    if config.output.is_empty() {
        config.output = outputs
            .iter()
            .map(|spec| {
                let (dims, reshape) = dims(spec, batch);
                ModelOutput {
                    name: spec.name.clone(),
                    data_type: proto_data_type(spec.dtype).into(),
                    dims,
                    reshape,
                    ..ModelOutput::default()
                }
            })
            .collect();
    }
}

/// The configuration has no way to say "no dimensions": one of size 1 stands for it, and with batching a reshape says
/// that the model does not have it.
fn dims(spec: &TensorSpec, batch: bool) -> (Vec<i64>, Option<ModelTensorReshape>) {
    let dims: Vec<_> = spec
        .shape
        .iter()
        .copied()
        .skip(usize::from(batch))
        .collect();
    if dims.is_empty() {
        (vec![1], batch.then(ModelTensorReshape::default))
    } else {
        (dims, None)
    }
}
