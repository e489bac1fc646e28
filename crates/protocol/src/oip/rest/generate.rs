//! Triton's generate extension: a flat JSON object in, one or more flat JSON objects out.
//!
//! A member that is named like an input of the model is that input; every other one is a parameter of the request. The
//! members of `parameters` are taken as if they stood outside.

use super::error::broken;
use super::header::parameter_of;
use super::response::{write, write_data, write_value};
use super::{DEPTH_MAX, data};
use crate::json::{Fault, Kind, Lone, Reader};
use crate::oip::checks::reserved;
use crate::{
    ApiError, BufferPool, InferRequest, InferResponse, ModelMetadata, Tensor, TensorSpec, shown,
};

/// Reads a generate request for this model. `batches` says whether the first dimension of its shapes is the batch.
pub fn read_generate(
    body: &[u8],
    metadata: &ModelMetadata,
    batches: bool,
    pool: &BufferPool,
) -> Result<InferRequest, ApiError> {
    let mut reader = Reader::new(body, DEPTH_MAX).map_err(broken)?;
    let mut request = InferRequest {
        model: metadata.name.clone(),
        ..InferRequest::default()
    };
    let mut target = Target {
        metadata,
        batches,
        pool,
        request: &mut request,
    };
    target.members(&mut reader, true).map_err(Why::into_error)?;
    reader.end().map_err(broken)?;
    if let Some((key, why)) = reserved(&request.parameters) {
        let message = format!("parameter `{}`: {why}", shown::name(key));
        return Err(ApiError::invalid(message).with_param(key));
    }
    Ok(request)
}

enum Why {
    Fault(Fault),
    Error(ApiError),
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Why {
    fn into_error(self) -> ApiError {
        match self {
            Self::Fault(fault) => broken(fault),
            Self::Error(error) => error,
        }
    }
}

struct Target<'a> {
    metadata: &'a ModelMetadata,
    batches: bool,
    pool: &'a BufferPool,
    request: &'a mut InferRequest,
}

impl Target<'_> {
    fn members(&mut self, reader: &mut Reader<'_>, outermost: bool) -> Result<(), Why> {
        reader.object(|reader, key| {
            let key = key.unescape(Lone::Refuse)?.into_owned();
            let metadata = self.metadata;
            if let Some(spec) = metadata.inputs.iter().find(|spec| spec.name == key) {
                let text = reader.skip()?;
                let tensor = self.tensor(spec, text).map_err(Why::Error)?;
                if self.request.inputs.iter().any(|input| input.name == tensor.name) {
                    let message = format!("input '{}' already exists in request", shown::name(&key));
                    return Err(Why::Error(ApiError::invalid(message).with_param(key)));
                }
                self.request.inputs.push(tensor);
                return Ok(());
            }
            let kind = reader.kind()?;
            if outermost && key == "parameters" && kind == Kind::Object {
                return self.members(reader, false);
            }
            if outermost && key == "id" && kind == Kind::Text {
                let id = reader.text()?.unescape(Lone::Refuse)?;
                self.request.id = Some(id.into_owned());
                return Ok(());
            }
            let text = reader.skip()?;
            let value = parameter_of(text).ok_or_else(|| {
                let name = shown::name(&key);
                let message = format!(
                    "parameter '{name}' has invalid type: it is no input of model '{}', and a parameter is a number, a boolean or a string",
                    shown::name(&metadata.name)
                );
                Why::Error(ApiError::invalid(message).with_param(name))
            })?;
            self.request.parameters.insert(key, value);
            Ok(())
        })
    }

    fn tensor(&self, spec: &TensorSpec, text: &str) -> Result<Tensor, ApiError> {
        let refuse = |message: String| {
            let name = shown::name(&spec.name);
            ApiError::invalid(format!("input `{name}`: {message}")).with_param(&spec.name)
        };
        let dims = spec
            .shape
            .get(usize::from(self.batches)..)
            .unwrap_or_default();
        let mut reader = Reader::over(text, DEPTH_MAX);
        let elements = elements(&mut reader).map_err(|fault| refuse(fault.to_string()))?;
        let inner = shape(dims, elements).map_err(&refuse)?;
        let shape = if self.batches {
            [vec![1], inner].concat()
        } else {
            inner
        };
        let listed = if text.starts_with('[') {
            std::borrow::Cow::Borrowed(text)
        } else {
            std::borrow::Cow::Owned(format!("[{text}]"))
        };
        let bytes =
            data::parse(&listed, &spec.name, spec.dtype, &shape, self.pool).map_err(&refuse)?;
        Tensor::new(&spec.name, spec.dtype, shape, bytes).map_err(|error| refuse(error.to_string()))
    }
}

/// Scalars in a value, whatever lists they are in.
fn elements(reader: &mut Reader<'_>) -> Result<usize, Fault> {
    if reader.kind()? != Kind::Array {
        reader.skip()?;
        return Ok(1);
    }
    let mut found = 0;
    reader.array(|reader| {
        found += elements(reader)?;
        Ok::<(), Fault>(())
    })?;
    Ok(found)
}

/// The model's dimensions, with the one that it leaves open as the number of elements makes it.
fn shape(dims: &[i64], elements: usize) -> Result<Vec<usize>, String> {
    let open = dims.iter().filter(|dim| **dim < 0).count();
    if open > 1 && elements != 1 {
        return Err(
            "its shape can not be deduced, because there are more than one variable-sized dimension"
                .to_owned(),
        );
    }
    let fixed = dims
        .iter()
        .filter_map(|dim| usize::try_from(*dim).ok())
        .try_fold(1_usize, usize::checked_mul);
    let found = match fixed {
        Some(0) | None => 0,
        Some(fixed) => elements / fixed,
    };
    Ok(dims
        .iter()
        .map(|dim| usize::try_from(*dim).unwrap_or(found))
        .collect())
}

/// One answer: outputs by name, a single element without a list around it.
pub fn encode_generate(response: &InferResponse) -> Result<Vec<u8>, ApiError> {
    let mut json = Vec::with_capacity(128);
    json.extend_from_slice(b"{\"model_name\":");
    write(&mut json, &response.model);
    json.extend_from_slice(b",\"model_version\":");
    write(&mut json, &response.version);
    if let Some(id) = &response.id {
        json.extend_from_slice(b",\"id\":");
        write(&mut json, id);
    }
    for (name, value) in &response.parameters {
        member(&mut json, name);
        write_value(&mut json, value);
    }
    for tensor in &response.outputs {
        member(&mut json, &tensor.name);
        let start = json.len();
        write_data(&mut json, tensor).map_err(|message| {
            let name = shown::name(&tensor.name);
            ApiError::invalid(format!("output `{name}`: {message}"))
        })?;
        if tensor.element_count() == 1 {
            json.pop();
            json.remove(start);
        }
    }
    json.push(b'}');
    Ok(json)
}

fn member(json: &mut Vec<u8>, name: &str) {
    json.push(b',');
    write(json, name);
    json.push(b':');
}

/// For the fuzzer: whatever the bytes, an answer, and what was read can be sent back.
pub fn fuzz_rest_generate(body: &[u8]) {
    let inputs = crate::DataType::ALL.map(|dtype| TensorSpec::new(dtype.name(), dtype, vec![-1]));
    let metadata = ModelMetadata {
        name: "m".to_owned(),
        versions: Vec::new(),
        platform: String::new(),
        inputs: inputs.to_vec(),
        outputs: Vec::new(),
    };
    let Ok(request) = read_generate(body, &metadata, false, &BufferPool::new(0)) else {
        return;
    };
    let response = InferResponse {
        outputs: request.inputs,
        ..InferResponse::default()
    };
    let json = encode_generate(&response).expect("what came as JSON goes as JSON");
    assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
}

#[cfg(test)]
mod tests;
