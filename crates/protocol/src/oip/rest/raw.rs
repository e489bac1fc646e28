//! Triton's `Inference-Header-Content-Length: 0`: the whole body is one tensor, and the model says which.

use bytes::Bytes;

use super::ResponseForm;
use crate::tensor::encode_bytes_elements;
use crate::{ApiError, DataType, InferRequest, ModelMetadata, Tensor, shown};

/// A request for one input of batch size 1, with every output binary. `batches` says whether the first dimension of the
/// model's shapes is the batch. The refusals are Triton's.
pub fn raw_request(
    metadata: &ModelMetadata,
    version: Option<&str>,
    batches: bool,
    body: Bytes,
) -> Result<(InferRequest, ResponseForm), ApiError> {
    let [input] = metadata.inputs.as_slice() else {
        return Err(ApiError::invalid(format!(
            "Raw request must only have 1 input (found 1) to be deduced but got {} inputs in '{}' model configuration",
            metadata.inputs.len(),
            shown::name(&metadata.name)
        )));
    };
    let dims = input.shape.get(usize::from(batches)..).unwrap_or_default();
    let (inner, data) = if input.dtype == DataType::Bytes {
        if dims != [1] {
            return Err(ApiError::invalid(format!(
                "For BYTE datatype raw input '{}', the model must have input shape [1]",
                shown::name(&input.name)
            )));
        }
        let element = encode_bytes_elements([body])
            .ok_or_else(|| ApiError::invalid("a string has at most 4 GiB"))?;
        (vec![1], Bytes::from(element))
    } else {
        (deduced(&input.name, dims, input.dtype, body.len())?, body)
    };
    let shape = if batches {
        [vec![1], inner].concat()
    } else {
        inner
    };
    let tensor = Tensor::new(&input.name, input.dtype, shape, data).map_err(|error| {
        ApiError::invalid(error.of_input(&metadata.name)).with_param(&input.name)
    })?;
    let request = InferRequest {
        model: metadata.name.clone(),
        version: version.map(str::to_owned),
        inputs: vec![tensor],
        ..InferRequest::default()
    };
    let form = ResponseForm {
        binary: true,
        ..ResponseForm::default()
    };
    Ok((request, form))
}

/// The one dimension that the model leaves open is what the bytes make it.
fn deduced(
    name: &str,
    dims: &[i64],
    dtype: DataType,
    bytes: usize,
) -> Result<Vec<usize>, ApiError> {
    let open = dims.iter().filter(|dim| **dim < 0).count();
    if open > 1 {
        return Err(ApiError::invalid(format!(
            "The shape of the raw input '{}' can not be deduced because there are more than one variable-sized dimension",
            shown::name(name)
        )));
    }
    let fixed = dims
        .iter()
        .filter_map(|dim| usize::try_from(*dim).ok())
        .try_fold(dtype.size().unwrap_or(1), usize::checked_mul)
        .filter(|bytes| *bytes > 0);
    let found = fixed.map_or(0, |fixed| bytes / fixed);
    Ok(dims
        .iter()
        .map(|dim| usize::try_from(*dim).unwrap_or(found))
        .collect())
}
