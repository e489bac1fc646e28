//! The Open Inference Protocol from the client's side: JSON, or JSON with raw bytes behind it.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use protocol::{DataType, Tensor};
use serde_json::{Value, json};

use super::element;
use crate::client::Reply;
use crate::exit::{Failure, Outcome};

/// Bytes of the JSON part when raw tensors follow it.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

#[derive(Debug)]
pub(super) struct Request {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) fn request(tensors: &[Tensor], binary: bool) -> Outcome<Request> {
    let mut headers = HeaderMap::new();
    let mut inputs = Vec::new();
    for tensor in tensors {
        let mut input = json!({
            "name": tensor.name,
            "datatype": tensor.dtype.name(),
            "shape": tensor.shape,
        });
        if binary {
            input["parameters"] = json!({ "binary_data_size": tensor.data.len() });
        } else {
            input["data"] = element::decode(&tensor.data, tensor.dtype)
                .ok_or_else(|| Failure::usage(format!("input `{}` is broken", tensor.name)))?
                .into();
        }
        inputs.push(input);
    }
    let mut document = json!({ "inputs": inputs });
    if !binary {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from(document.to_string());
        return Ok(Request { headers, body });
    }
    document["parameters"] = json!({ "binary_data_output": true });
    let mut body = document.to_string().into_bytes();
    headers.insert(HEADER_LENGTH, body.len().into());
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    for tensor in tensors {
        body.extend_from_slice(&tensor.data);
    }
    Ok(Request {
        headers,
        body: body.into(),
    })
}

/// The answer as one JSON document, raw outputs decoded.
pub(super) fn answer(reply: &Reply) -> Outcome<Value> {
    let Some(length) = reply.header(HEADER_LENGTH.as_str()) else {
        return reply.json();
    };
    let broken = || Failure::failed("the server's binary answer does not add up");
    let length: usize = length.parse().map_err(|_| broken())?;
    let (head, mut rest) = reply.body.split_at_checked(length).ok_or_else(broken)?;
    let mut document: Value = serde_json::from_slice(head).map_err(|_| broken())?;
    let outputs = document["outputs"].as_array_mut().ok_or_else(broken)?;
    for output in outputs {
        let Some(size) = output["parameters"]["binary_data_size"].as_u64() else {
            continue;
        };
        let size = usize::try_from(size).map_err(|_| broken())?;
        let (data, after) = rest.split_at_checked(size).ok_or_else(broken)?;
        rest = after;
        let dtype = output["datatype"].as_str().and_then(DataType::from_name);
        let decoded = dtype.and_then(|dtype| element::decode(data, dtype));
        output["data"] = decoded.ok_or_else(broken)?.into();
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor() -> Tensor {
        let data = [1_i32, -2]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<_>>();
        Tensor::new("x", DataType::Int32, vec![2], data.into()).expect("a tensor")
    }

    #[test]
    fn the_same_tensor_goes_out_as_json_or_as_bytes() {
        let request = super::request(&[tensor()], false).expect("a request");
        let document: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(document["inputs"][0]["data"], json!([1, -2]));
        assert!(!request.headers.contains_key(HEADER_LENGTH));

        let request = super::request(&[tensor()], true).expect("a request");
        let length: usize = request.headers[HEADER_LENGTH]
            .to_str()
            .expect("ASCII")
            .parse()
            .expect("a number");
        assert_eq!(request.body.len(), length + 8);
        let document: Value = serde_json::from_slice(&request.body[..length]).expect("JSON");
        assert_eq!(document["inputs"][0]["parameters"]["binary_data_size"], 8);
    }

    #[test]
    fn a_binary_answer_reads_like_a_json_one_and_a_short_one_is_refused() {
        let head = json!({"outputs": [
            {"name": "y", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "z", "datatype": "BOOL", "shape": [1], "data": [true]},
        ]})
        .to_string();
        let mut body = head.clone().into_bytes();
        body.extend_from_slice(&tensor().data);
        let reply = |body: Vec<u8>| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER_LENGTH, head.len().into());
            Reply {
                headers,
                body: body.into(),
            }
        };
        let document = answer(&reply(body.clone())).expect("an answer");
        assert_eq!(document["outputs"][0]["data"], json!([1, -2]));
        assert_eq!(document["outputs"][1]["data"], json!([true]));
        body.pop();
        assert!(answer(&reply(body)).is_err());
    }
}
