use std::collections::HashSet;

use base::ErrorKind;
use bytes::Bytes;

use super::{contents, parameters};
use crate::oip::checks::{RANK_MAX, check_output_parameters, rank_message};
use crate::oip::proto::ModelInferRequest;
use crate::oip::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::{ApiError, DataType, InferRequest, RequestedOutput, Tensor, shown};

/// The parameter that says an input's bytes are in shared memory and not in the request.
const SHARED_MEMORY: &str = "shared_memory_region";

/// Checks the message and gives every input its bytes: from its own typed `contents`, else from the next of
/// `raw_input_contents`. Where both are possible the words are Triton's, because its clients match on them.
pub fn infer_request(message: ModelInferRequest) -> Result<InferRequest, ApiError> {
    let mut raw = RawContents {
        model: &message.model_name,
        total: message.raw_input_contents.len(),
        left: message.raw_input_contents.into_iter(),
    };
    let inputs = message
        .inputs
        .into_iter()
        .map(|input| tensor(input, &mut raw))
        .collect::<Result<_, _>>()?;
    raw.finish()?;
    let outputs = requested(message.outputs)?;
    Ok(InferRequest {
        model: message.model_name,
        version: none_if_empty(message.model_version),
        id: none_if_empty(message.id),
        parameters: parameters::read(message.parameters, "the request")?,
        inputs,
        outputs,
    })
}

/// An output asked for twice is given once, as over REST.
fn requested(outputs: Vec<InferRequestedOutputTensor>) -> Result<Vec<RequestedOutput>, ApiError> {
    let mut requested = Vec::with_capacity(outputs.len());
    let mut names = HashSet::new();
    for output in outputs {
        let owner = format!("output `{}`", shown::name(&output.name));
        let parameters = parameters::read(output.parameters, &owner)?;
        check_output_parameters(&parameters).map_err(|refused| {
            let message = format!("{owner}: {}", refused.message);
            ApiError::new(ErrorKind::Unsupported, message).with_param(&output.name)
        })?;
        if names.insert(output.name.clone()) {
            requested.push(RequestedOutput {
                name: output.name,
                parameters,
            });
        }
    }
    Ok(requested)
}

/// proto3 cannot tell an empty string from an absent one.
fn none_if_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Hands out the raw contents in order and notices when the count is wrong.
struct RawContents<'a> {
    model: &'a str,
    total: usize,
    left: std::vec::IntoIter<Bytes>,
}

impl RawContents<'_> {
    fn next_for(&mut self, input: &str) -> Result<Bytes, ApiError> {
        self.left.next().ok_or_else(|| {
            ApiError::invalid(format!(
                "unable to find data for input tensor '{}' for model '{}' in request.",
                shown::name(input),
                shown::name(self.model)
            ))
            .with_param(input)
        })
    }

    fn finish(self) -> Result<(), ApiError> {
        if self.left.len() == 0 {
            return Ok(());
        }
        let used = self.total - self.left.len();
        Err(ApiError::invalid(format!(
            "{} raw input contents for model '{}', but its inputs need {used}",
            self.total,
            shown::name(self.model)
        ))
        .with_param("raw_input_contents"))
    }
}

fn tensor(input: InferInputTensor, raw: &mut RawContents<'_>) -> Result<Tensor, ApiError> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        parameters,
        contents,
    } = input;
    let dtype = DataType::from_name(&datatype).ok_or_else(|| unknown_type(&name, &datatype))?;
    let shape = concrete_shape(&name, &shape)?;
    if parameters.contains_key(SHARED_MEMORY) {
        return Err(ApiError::new(
            ErrorKind::Unsupported,
            format!(
                "input `{}` is in shared memory, which this server does not read; send its bytes",
                shown::name(&name)
            ),
        )
        .with_param(name));
    }
    let data = match contents {
        Some(_) if raw.total > 0 => {
            return Err(ApiError::invalid(format!(
                "contents field must not be specified when using raw_input_contents for '{}' for model '{}'",
                shown::name(&name), shown::name(raw.model)
            ))
            .with_param(name));
        }
        Some(contents) => contents::bytes_of(contents, dtype, &name, raw.model)?,
        None => raw.next_for(&name)?,
    };
    Tensor::new(name.clone(), dtype, shape, data)
        .map_err(|error| ApiError::invalid(error.to_string()).with_param(name))
}

fn unknown_type(input: &str, datatype: &str) -> ApiError {
    let hint = base::nearest(datatype, DataType::ALL.map(DataType::name))
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    ApiError::invalid(format!(
        "input `{}`: unknown datatype `{}`{hint}",
        shown::name(input),
        shown::name(datatype)
    ))
    .with_param(input)
}

fn concrete_shape(input: &str, shape: &[i64]) -> Result<Vec<usize>, ApiError> {
    if shape.len() > RANK_MAX {
        return Err(too_many_dimensions(input));
    }
    shape
        .iter()
        .map(|dim| {
            usize::try_from(*dim).map_err(|_| {
                ApiError::invalid(format!(
                    "input `{}`: dimension {dim} of shape {}; a request's shape has no negative dimensions", shown::name(input), shown::shape(shape)
                ))
                .with_param(input)
            })
        })
        .collect()
}

fn too_many_dimensions(input: &str) -> ApiError {
    let message = format!("input `{}`: {}", shown::name(input), rank_message());
    ApiError::invalid(message).with_param(input)
}
