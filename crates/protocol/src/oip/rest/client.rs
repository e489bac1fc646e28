//! The other side of the protocol: requests that are sent to a server, and answers that come from one.

use bytes::Bytes;

use super::header::{Input, InputData, read_input, read_parameters};
use super::response::{EncodedResponse, write, write_parameters, write_value};
use super::{DEPTH_MAX, data};
use crate::json::{Fault, Lone, Reader};
use crate::oip::checks::TENSORS_MAX;
use crate::{
    ApiError, BufferPool, InferRequest, InferResponse, ModelMetadata, Parameter, Tensor, TensorSpec,
};

/// A request with every tensor behind the JSON, asking for the same of the answer.
pub fn encode_request(request: &InferRequest) -> EncodedResponse {
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    if let Some(id) = &request.id {
        json.extend_from_slice(b"\"id\":");
        write(&mut json, id);
        json.push(b',');
    }
    let mut parameters = request.parameters.clone();
    parameters.insert("binary_data_output".to_owned(), Parameter::Bool(true));
    json.extend_from_slice(b"\"parameters\":");
    write_parameters(&mut json, &parameters);
    json.extend_from_slice(b",\"inputs\":[");
    for (index, tensor) in request.inputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        write(&mut json, &tensor.name);
        json.extend_from_slice(b",\"datatype\":");
        write(&mut json, tensor.dtype.name());
        json.extend_from_slice(b",\"shape\":");
        write(&mut json, &tensor.shape);
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write(&mut json, &tensor.data.len());
        json.extend_from_slice(b"}}");
    }
    json.push(b']');
    if !request.outputs.is_empty() {
        json.extend_from_slice(b",\"outputs\":[");
        for (index, output) in request.outputs.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(b"{\"name\":");
            write(&mut json, &output.name);
            json.extend_from_slice(b",\"parameters\":{\"binary_data\":true");
            for (key, value) in &output.parameters {
                json.push(b',');
                write(&mut json, key);
                json.push(b':');
                write_value(&mut json, value);
            }
            json.extend_from_slice(b"}}");
        }
        json.push(b']');
    }
    json.push(b'}');
    let tensors = request.inputs.iter();
    EncodedResponse {
        header_length: Some(json.len()),
        json,
        binary: tensors.map(|tensor| tensor.data.clone()).collect(),
    }
}

/// An answer: `json_bytes` is its `Inference-Header-Content-Length`, none if it is JSON alone.
pub fn decode_response(
    body: &Bytes,
    json_bytes: Option<usize>,
    pool: &BufferPool,
) -> Result<InferResponse, ApiError> {
    let json_bytes = json_bytes.unwrap_or(body.len());
    let json = body
        .get(..json_bytes)
        .ok_or_else(|| broken("its JSON ends too early"))?;
    let mut behind = body.slice(json_bytes..);
    let mut reader = Reader::new(json, DEPTH_MAX).map_err(|fault| broken(&fault.to_string()))?;
    let names = ["model_name", "model_version", "id", "parameters", "outputs"];
    let [model, version, id, parameters, outputs] = reader
        .fields(names)
        .map_err(|fault| broken(&fault.to_string()))?;
    let text = |value: Option<&str>| value.filter(|value| *value != "null").map(string);
    let (parameters, _) = read_parameters(parameters)?;
    let mut response = InferResponse {
        model: text(model).transpose()?.unwrap_or_default(),
        version: text(version).transpose()?.unwrap_or_default(),
        id: text(id).transpose()?,
        parameters,
        outputs: Vec::new(),
    };
    let mut texts = Vec::new();
    let listed = Reader::over(
        outputs.ok_or_else(|| broken("it has no outputs"))?,
        DEPTH_MAX,
    )
    .array(|reader| {
        let text = reader.skip()?;
        if texts.len() <= TENSORS_MAX {
            texts.push(text);
        }
        Ok::<(), Fault>(())
    });
    listed.map_err(|fault| broken(&fault.to_string()))?;
    if texts.len() > TENSORS_MAX {
        return Err(broken("it has too many outputs"));
    }
    for (index, text) in texts.into_iter().enumerate() {
        let (output, _place) = read_input(text, index)?;
        response.outputs.push(tensor(output, &mut behind, pool)?);
    }
    if !behind.is_empty() {
        return Err(broken("more bytes follow than its outputs say"));
    }
    Ok(response)
}

fn tensor(output: Input<'_>, behind: &mut Bytes, pool: &BufferPool) -> Result<Tensor, ApiError> {
    let bytes = match output.data {
        InputData::Json(text) => data::parse(text, &output.name, output.dtype, &output.shape, pool)
            .map_err(|message| broken(&message))?,
        InputData::Binary { bytes } if bytes <= behind.len() => behind.split_to(bytes),
        InputData::Binary { .. } => return Err(broken("it ends before its outputs do")),
        InputData::Shared(_) | InputData::Read(_) => {
            return Err(broken(
                "an output is in shared memory, which nobody asked for",
            ));
        }
    };
    Tensor::new(output.name, output.dtype, output.shape, bytes)
        .map_err(|error| broken(&error.to_string()))
}

fn string(value: &str) -> Result<String, ApiError> {
    let text = Reader::over(value, DEPTH_MAX).text();
    let text = text.and_then(|text| text.unescape(Lone::Replace).map(String::from));
    text.map_err(|fault| broken(&fault.to_string()))
}

/// `GET /v2/models/{name}`
pub fn decode_metadata(body: &[u8]) -> Result<ModelMetadata, ApiError> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        name: String,
        #[serde(default)]
        versions: Option<Vec<String>>,
        #[serde(default)]
        platform: String,
        #[serde(default)]
        inputs: Vec<Spec>,
        #[serde(default)]
        outputs: Vec<Spec>,
    }
    #[derive(serde::Deserialize)]
    struct Spec {
        name: String,
        datatype: String,
        shape: Vec<i64>,
    }
    let read: Metadata =
        serde_json::from_slice(body).map_err(|error| broken(&error.to_string()))?;
    let specs = |specs: Vec<Spec>| {
        let specs = specs.into_iter().map(|spec| {
            let dtype = crate::DataType::from_name(&spec.datatype)
                .ok_or_else(|| broken("a tensor's datatype is not known"))?;
            Ok(TensorSpec::new(spec.name, dtype, spec.shape))
        });
        specs.collect::<Result<Vec<_>, ApiError>>()
    };
    Ok(ModelMetadata {
        name: read.name,
        versions: read.versions.unwrap_or_default(),
        platform: read.platform,
        inputs: specs(read.inputs)?,
        outputs: specs(read.outputs)?,
    })
}

/// What a server says of an error of its own.
pub fn error_of(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Told {
        error: String,
    }
    let told: Told = serde_json::from_slice(body).ok()?;
    Some(told.error)
}

fn broken(why: &str) -> ApiError {
    ApiError::invalid(format!("the answer cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::{encode, parse_header};
    use super::*;
    use crate::{DataType, RequestedOutput};

    fn request() -> InferRequest {
        let int = Tensor::new(
            "x",
            DataType::Int32,
            vec![2],
            Bytes::from_static(&[1, 0, 0, 0, 2, 0, 0, 0]),
        );
        let half = Tensor::new("h", DataType::Fp16, vec![1], Bytes::from_static(&[0, 60]));
        InferRequest {
            model: "m".to_owned(),
            version: Some("3".to_owned()),
            id: Some("id \"7\"".to_owned()),
            parameters: [("priority".to_owned(), Parameter::Uint(2))].into(),
            inputs: vec![int.expect("a tensor"), half.expect("a tensor")],
            outputs: vec![RequestedOutput {
                name: "y".to_owned(),
                parameters: [("classification".to_owned(), Parameter::Int(3))].into(),
            }],
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_meant() {
        let sent = request();
        let encoded = encode_request(&sent);
        let header = parse_header(&encoded.json).expect("our own");
        let (found, form) = header
            .into_request("m", Some("3"), encoded.binary, &BufferPool::new(0))
            .expect("our own");
        assert_eq!(
            found,
            InferRequest {
                parameters: [("priority".to_owned(), Parameter::Int(2))].into(),
                ..sent
            }
        );
        assert!(form.wants_binary("y") && form.wants_binary("other"));
    }

    #[test]
    fn an_answer_is_read_as_it_was_meant_in_either_form() {
        let request = request();
        let sent = InferResponse {
            model: "m".to_owned(),
            version: "3".to_owned(),
            id: request.id.clone(),
            parameters: [("p".to_owned(), Parameter::Bool(true))].into(),
            outputs: vec![request.inputs[0].clone()],
        };
        for binary in [false, true] {
            let form = super::super::ResponseForm {
                binary,
                ..Default::default()
            };
            let encoded = encode(&sent, &form).expect("numbers");
            let body: Bytes = [encoded.json, encoded.binary.concat()].concat().into();
            let found = decode_response(&body, encoded.header_length, &BufferPool::new(0));
            assert_eq!(found.as_ref(), Ok(&sent), "{binary}");
            let short = body.slice(..body.len() - 1);
            let found = decode_response(&short, encoded.header_length, &BufferPool::new(0));
            assert!(found.is_err(), "{binary}: cut and taken for whole");
        }
    }

    #[test]
    fn metadata_and_errors_are_read() {
        let metadata = ModelMetadata {
            name: "m".to_owned(),
            versions: vec!["1".to_owned()],
            platform: "onnx".to_owned(),
            inputs: vec![TensorSpec::new("x", DataType::Bytes, vec![-1, 1])],
            outputs: Vec::new(),
        };
        let body = super::super::metadata(&metadata);
        assert_eq!(decode_metadata(&body), Ok(metadata));
        assert!(decode_metadata(b"{}").is_err());
        assert_eq!(error_of(b"{\"error\":\"no\"}").as_deref(), Some("no"));
        assert_eq!(error_of(b"<html>"), None);
    }
}
