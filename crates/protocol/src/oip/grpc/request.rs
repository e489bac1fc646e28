use std::collections::HashSet;

use bytes::Bytes;

use super::{contents, parameters};
use crate::oip::checks::{RANK_MAX, output_place, rank_message, reserved};
use crate::oip::proto::ModelInferRequest;
use crate::oip::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::oip::shared::{self, Placement, Shared};
use crate::{ApiError, DataType, InferRequest, RequestedOutput, Tensor, shown};

/// Where the inputs in shared memory are, in order; their sizes fit their types and shapes.
pub fn shared_inputs(message: &ModelInferRequest) -> Result<Vec<Shared>, ApiError> {
    let mut plan = Vec::new();
    for input in &message.inputs {
        // Most inputs have no parameters at all.
        if input.parameters.is_empty() {
            continue;
        }
        let Some(place) = place_of(input)? else {
            continue;
        };
        let dtype = DataType::from_name(&input.datatype)
            .ok_or_else(|| unknown_type(&input.name, &input.datatype))?;
        let shape = concrete_shape(&input.name, &input.shape)?;
        let names = (input.name.as_str(), message.model_name.as_str());
        shared::check_size(names, dtype, &shape, place.bytes)?;
        plan.push(place);
    }
    Ok(plan)
}

fn place_of(input: &InferInputTensor) -> Result<Option<Shared>, ApiError> {
    let owner = format!("input `{}`", shown::name(&input.name));
    let mut parameters = parameters::read(input.parameters.clone(), &owner)?;
    shared::take(&mut parameters).map_err(|refused| {
        let message = format!("{owner}: {}", refused.message);
        ApiError::invalid(message).with_param(&input.name)
    })
}

/// Checks the message and gives every input its bytes: from `read` if it is in shared memory, from its own typed
/// `contents`, else from the next of `raw_input_contents`. Where both are possible the words are Triton's, because its
/// clients match on them. `read` is what [`shared_inputs`] asked for; beside the request stands where its outputs go.
pub fn infer_request(
    message: ModelInferRequest,
    read: Vec<Bytes>,
) -> Result<(InferRequest, Placement), ApiError> {
    let mut raw = RawContents {
        model: &message.model_name,
        total: message.raw_input_contents.len(),
        left: message.raw_input_contents.into_iter(),
    };
    let mut read = read.into_iter();
    let inputs = message
        .inputs
        .into_iter()
        .map(|input| tensor(input, &mut raw, &mut read))
        .collect::<Result<_, _>>()?;
    raw.finish()?;
    let (outputs, placement) = requested(message.outputs)?;
    let parameters = parameters::read(message.parameters, "the request")?;
    if let Some((key, why)) = reserved(&parameters) {
        let message = format!("parameter `{}`: {why}", shown::name(key));
        return Err(ApiError::invalid(message).with_param(key));
    }
    let request = InferRequest {
        model: message.model_name,
        version: none_if_empty(message.model_version),
        id: none_if_empty(message.id),
        parameters,
        inputs,
        outputs,
    };
    Ok((request, placement))
}

/// An output asked for twice is given once, as over REST.
fn requested(
    outputs: Vec<InferRequestedOutputTensor>,
) -> Result<(Vec<RequestedOutput>, Placement), ApiError> {
    let mut requested = Vec::with_capacity(outputs.len());
    let mut placement = Placement::new();
    let mut names = HashSet::new();
    for output in outputs {
        let owner = format!("output `{}`", shown::name(&output.name));
        let mut parameters = parameters::read(output.parameters, &owner)?;
        let place = output_place(&mut parameters).map_err(|refused| {
            let message = format!("{owner}: {}", refused.message);
            ApiError::invalid(message).with_param(&output.name)
        })?;
        if let Some(place) = place {
            placement.insert(output.name.clone(), place);
        }
        if names.insert(output.name.clone()) {
            requested.push(RequestedOutput {
                name: output.name,
                parameters,
            });
        }
    }
    Ok((requested, placement))
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

fn tensor(
    input: InferInputTensor,
    raw: &mut RawContents<'_>,
    read: &mut impl Iterator<Item = Bytes>,
) -> Result<Tensor, ApiError> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        parameters,
        contents,
    } = input;
    let dtype = DataType::from_name(&datatype).ok_or_else(|| unknown_type(&name, &datatype))?;
    let shape = concrete_shape(&name, &shape)?;
    let in_shared_memory = parameters.contains_key(shared::REGION);
    let data = match contents {
        Some(_) if in_shared_memory => {
            return Err(ApiError::invalid(format!(
                "unexpected 'contents' provided when using shared memory for input tensor '{}' for model '{}'",
                shown::name(&name), shown::name(raw.model)
            ))
            .with_param(name));
        }
        None if in_shared_memory => read.next().unwrap_or_default(),
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
        .map_err(|error| ApiError::invalid(error.of_input(raw.model)).with_param(name))
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
