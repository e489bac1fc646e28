//! The other side of the protocol: requests that are sent to a server, and answers that come from one.

use bytes::{Buf, Bytes};
use prost::Message as _;

use super::contents;
use super::parameters;
use crate::oip::proto::model_infer_response::InferOutputTensor;
use crate::oip::proto::{ModelInferResponse, ModelMetadataResponse};
use crate::{ApiError, DataType, InferResponse, ModelMetadata, Tensor, TensorSpec};

/// An answer's message.
pub fn decode_response(message: impl Buf) -> Result<InferResponse, ApiError> {
    let message =
        ModelInferResponse::decode(message).map_err(|error| broken(&error.to_string()))?;
    let raw_given = !message.raw_output_contents.is_empty();
    let mut raw = message.raw_output_contents.into_iter();
    let model = message.model_name;
    let outputs = message.outputs.into_iter().map(|output| {
        let bytes = if raw_given {
            Some(
                raw.next()
                    .ok_or_else(|| broken("it has fewer contents than outputs"))?,
            )
        } else {
            None
        };
        tensor(output, bytes, &model)
    });
    let outputs = outputs.collect::<Result<_, _>>()?;
    if raw.next().is_some() {
        return Err(broken("it has more contents than outputs"));
    }
    Ok(InferResponse {
        version: message.model_version,
        id: (!message.id.is_empty()).then_some(message.id),
        parameters: parameters::read(message.parameters, "the answer")?,
        outputs,
        model,
    })
}

fn tensor(output: InferOutputTensor, raw: Option<Bytes>, model: &str) -> Result<Tensor, ApiError> {
    let dtype = DataType::from_name(&output.datatype)
        .ok_or_else(|| broken("an output's datatype is not known"))?;
    let shape = output.shape.iter().map(|dim| usize::try_from(*dim));
    let shape = shape
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| broken("an output has a negative dimension"))?;
    let bytes = match (raw, output.contents) {
        (Some(raw), _) => raw,
        (None, Some(contents)) => contents::bytes_of(contents, dtype, &output.name, model)?,
        (None, None) => Bytes::new(),
    };
    Tensor::new(output.name, dtype, shape, bytes).map_err(|error| broken(&error.to_string()))
}

/// The answer to `ModelMetadata`.
pub fn decode_metadata(message: impl Buf) -> Result<ModelMetadata, ApiError> {
    let message =
        ModelMetadataResponse::decode(message).map_err(|error| broken(&error.to_string()))?;
    let specs = |tensors: Vec<crate::oip::proto::model_metadata_response::TensorMetadata>| {
        let specs = tensors.into_iter().map(|tensor| {
            let dtype = DataType::from_name(&tensor.datatype)
                .ok_or_else(|| broken("a tensor's datatype is not known"))?;
            Ok(TensorSpec::new(tensor.name, dtype, tensor.shape))
        });
        specs.collect::<Result<Vec<_>, ApiError>>()
    };
    Ok(ModelMetadata {
        name: message.name,
        versions: message.versions,
        platform: message.platform,
        inputs: specs(message.inputs)?,
        outputs: specs(message.outputs)?,
    })
}

fn broken(why: &str) -> ApiError {
    ApiError::invalid(format!("the answer cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::{decode_infer, encode_infer, encode_request, infer_request};
    use super::*;
    use crate::{BufferPool, InferRequest, Parameter, RequestedOutput};

    fn tensors() -> Vec<Tensor> {
        let large = Tensor::new("l", DataType::Uint8, vec![9000], vec![7; 9000].into());
        let small = Tensor::new(
            "s",
            DataType::Bytes,
            vec![1],
            Bytes::from_static(&[1, 0, 0, 0, b'a']),
        );
        vec![large.expect("a tensor"), small.expect("a tensor")]
    }

    #[test]
    fn a_request_is_read_as_it_was_meant() {
        let sent = InferRequest {
            model: "m".to_owned(),
            version: Some("2".to_owned()),
            id: Some("7".to_owned()),
            parameters: [("p".to_owned(), Parameter::Double(0.5))].into(),
            inputs: tensors(),
            outputs: vec![RequestedOutput {
                name: "y".to_owned(),
                parameters: [("classification".to_owned(), Parameter::Int(3))].into(),
            }],
        };
        let message = encode_request(sent.clone()).concat();
        let message = decode_infer(message.as_slice(), &BufferPool::new(0)).expect("our own");
        let (found, _) = infer_request(message, Vec::new()).expect("our own");
        assert_eq!(found, sent);
    }

    #[test]
    fn an_answer_is_read_as_it_was_meant() {
        let sent = InferResponse {
            model: "m".to_owned(),
            version: "2".to_owned(),
            id: None,
            parameters: [("p".to_owned(), Parameter::Text("x".to_owned()))].into(),
            outputs: tensors(),
        };
        let message = encode_infer(sent.clone(), &Default::default()).concat();
        assert_eq!(decode_response(message.as_slice()), Ok(sent));
        assert!(decode_response(&message[..message.len() - 1]).is_err());
    }
}
