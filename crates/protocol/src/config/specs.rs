use super::data_type;
use crate::TensorSpec;
use crate::oip::proto::{ModelConfig, ModelTensorReshape};

/// Inputs and outputs as requests and metadata have them: with the batch dimension, before any reshape. A tensor whose
/// type is not known is left out; `validate` reports it.
pub fn specs(config: &ModelConfig) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    tensors(config, |dims, _| dims)
}

/// Inputs and outputs as the engine has them: with the batch dimension, after the reshape.
pub fn engine_specs(config: &ModelConfig) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    tensors(config, |dims, reshape| {
        reshape.map_or(dims, |reshape| &reshape.shape)
    })
}

fn tensors(
    config: &ModelConfig,
    dims: for<'a> fn(&'a [i64], Option<&'a ModelTensorReshape>) -> &'a [i64],
) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    let batch = config.max_batch_size > 0;
    let spec = |name: &str, number: i32, dims: &[i64]| {
        let shape = batch.then_some(-1).into_iter().chain(dims.iter().copied());
        Some(TensorSpec::new(name, data_type(number)?, shape.collect()))
    };
    let inputs = config.input.iter().filter_map(|input| {
        spec(
            &input.name,
            input.data_type,
            dims(&input.dims, input.reshape.as_ref()),
        )
    });
    let outputs = config.output.iter().filter_map(|output| {
        spec(
            &output.name,
            output.data_type,
            dims(&output.dims, output.reshape.as_ref()),
        )
    });
    (inputs.collect(), outputs.collect())
}
