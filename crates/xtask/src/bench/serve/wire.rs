//! One inference, as REST with JSON, REST with binary tensors, and gRPC; and the answer's numbers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::bench::load::Post;
use crate::http::Http;
use crate::process::show;
use crate::protobuf::Message;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire {
    Json,
    Binary,
    Grpc,
}

#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) name: &'static str,
    pub(super) datatype: &'static str,
    pub(super) shape: Vec<usize>,
    /// Little-endian, row by row.
    pub(super) raw: Vec<u8>,
}

/// What is asked of a model; all its outputs are FP32.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) model: &'static str,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: &'static [&'static str],
}

/// A server's two doors; kapok's are one.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    pub(super) rest: Http,
    pub(super) grpc: Http,
}

/// What goes over the wire again and again.
#[derive(Debug)]
pub(super) struct Request {
    wire: Wire,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Wire {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "REST JSON",
            Self::Binary => "REST binary",
            Self::Grpc => "gRPC raw",
        }
    }
}

impl Input {
    pub(super) fn floats(name: &'static str, shape: Vec<usize>, values: &[f32]) -> Self {
        Self {
            name,
            datatype: "FP32",
            shape,
            raw: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

impl Question {
    pub(super) fn request(&self, wire: Wire) -> Result<Request> {
        let path = format!("/v2/models/{}/infer", self.model);
        let content = |kind: &str| ("content-type", kind.to_owned());
        Ok(match wire {
            Wire::Json => Request {
                wire,
                path,
                headers: vec![content("application/json")],
                body: self.json()?,
            },
            Wire::Binary => {
                let (length, body) = self.binary()?;
                Request {
                    wire,
                    path,
                    headers: vec![
                        content("application/octet-stream"),
                        ("inference-header-content-length", length.to_string()),
                    ],
                    body,
                }
            }
            Wire::Grpc => Request {
                wire,
                path: "/inference.GRPCInferenceService/ModelInfer".to_owned(),
                headers: vec![content("application/grpc")],
                body: self.grpc()?,
            },
        })
    }

    fn json(&self) -> Result<Vec<u8>> {
        let input = |input: &Input| {
            ensure!(input.datatype == "FP32", "JSON is for FP32 here");
            let data = floats(&input.raw)?;
            Ok(json!({"name": input.name, "datatype": "FP32", "shape": input.shape, "data": data}))
        };
        let inputs = self.inputs.iter().map(input).collect::<Result<Vec<_>>>()?;
        Ok(serde_json::to_vec(&json!({ "inputs": inputs }))?)
    }

    /// The length of the JSON before the tensors, and both.
    fn binary(&self) -> Result<(usize, Vec<u8>)> {
        let inputs = self.inputs.iter().map(|input| {
            json!({"name": input.name, "datatype": input.datatype, "shape": input.shape,
                "parameters": {"binary_data_size": input.raw.len()}})
        });
        let outputs = self
            .outputs
            .iter()
            .map(|name| json!({"name": name, "parameters": {"binary_data": true}}));
        let head =
            json!({"inputs": inputs.collect::<Vec<_>>(), "outputs": outputs.collect::<Vec<_>>()});
        let mut body = serde_json::to_vec(&head)?;
        let length = body.len();
        for input in &self.inputs {
            body.extend(&input.raw);
        }
        Ok((length, body))
    }

    /// A zero byte (not compressed), the length, and `ModelInferRequest` with raw contents.
    fn grpc(&self) -> Result<Vec<u8>> {
        let mut message = Message::new().text(1, self.model);
        for input in &self.inputs {
            let mut tensor = Message::new().text(1, input.name).text(2, input.datatype);
            for size in &input.shape {
                tensor = tensor.int(3, i64::try_from(*size)?);
            }
            message = message.message(5, tensor);
        }
        for name in self.outputs {
            message = message.message(6, Message::new().text(1, name));
        }
        for input in &self.inputs {
            message = message.bytes(7, &input.raw);
        }
        let message = message.into_bytes();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        Ok(body)
    }
}

impl Request {
    pub(super) fn post(&self, doors: &Doors) -> Post<'_> {
        let base = match self.wire {
            Wire::Json | Wire::Binary => doors.rest.base(),
            Wire::Grpc => doors.grpc.base(),
        };
        Post {
            url: format!("{base}{}", self.path),
            headers: self.headers.iter().map(|(n, v)| (*n, v.as_str())).collect(),
            body: &self.body,
        }
    }

    /// Asks once: the numbers of all outputs in turn.
    pub(super) fn ask(&self, doors: &Doors, scratch: &Path) -> Result<Vec<f32>> {
        let post = self.post(doors);
        match self.wire {
            Wire::Grpc => grpc_answer(&self.ask_grpc(&post, scratch)?),
            Wire::Json | Wire::Binary => {
                let reply = doors.rest.post(&self.path, &post.headers, &self.body)?;
                let length = reply.header("inference-header-content-length");
                let length = length.map(str::parse::<usize>).transpose()?;
                ensure!(
                    reply.status == 200,
                    "status {}: {}",
                    reply.status,
                    String::from_utf8_lossy(&reply.body)
                );
                rest_answer(&reply.body, length.unwrap_or(reply.body.len()))
            }
        }
    }

    fn ask_grpc(&self, post: &Post<'_>, scratch: &Path) -> Result<Vec<u8>> {
        let body = scratch.join("nghttp.body");
        std::fs::write(&body, post.body)?;
        let mut command = Command::new("nghttp");
        command.arg("-d").arg(&body).args(["-H", "te: trailers"]);
        for (name, value) in &post.headers {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        let output = command.arg(&post.url).output()?;
        ensure!(
            output.status.success(),
            "`{}` ended with {}",
            show(&command),
            output.status
        );
        Ok(output.stdout)
    }
}

pub(super) fn floats(raw: &[u8]) -> Result<Vec<f32>> {
    let (numbers, rest) = raw.as_chunks::<4>();
    ensure!(rest.is_empty(), "{} bytes are no FP32 values", raw.len());
    Ok(numbers
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect())
}

/// `length` bytes of JSON, then what is binary.
fn rest_answer(body: &[u8], length: usize) -> Result<Vec<f32>> {
    let (head, mut tensors) = body
        .split_at_checked(length)
        .context("an answer shorter than its JSON")?;
    let head: Value = serde_json::from_slice(head)?;
    let mut values = Vec::new();
    for output in head["outputs"].as_array().context("no `outputs`")? {
        if !output["data"].is_null() {
            values.extend(Vec::<f32>::deserialize(&output["data"])?);
            continue;
        }
        let size = output["parameters"]["binary_data_size"].as_u64();
        let size = usize::try_from(size.context("an output without data")?)?;
        let (tensor, rest) = tensors
            .split_at_checked(size)
            .context("a tensor beyond the answer")?;
        values.extend(floats(tensor)?);
        tensors = rest;
    }
    Ok(values)
}

/// The raw contents of a `ModelInferResponse` after its five bytes of prefix.
fn grpc_answer(body: &[u8]) -> Result<Vec<f32>> {
    const RAW_OUTPUT_CONTENTS: u64 = 6;
    let mut message = body.get(5..).context("the gRPC call answered no message")?;
    let mut values = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => drop(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                let (field, rest) = message
                    .split_at_checked(length)
                    .context("a field beyond the message")?;
                if key >> 3 == RAW_OUTPUT_CONTENTS {
                    values.extend(floats(field)?);
                }
                message = rest;
            }
            kind => bail!("wire type {kind} in a ModelInferResponse"),
        }
    }
    Ok(values)
}

fn varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message
            .split_first()
            .context("the message ends in a number")?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number of more than ten bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            model: "m",
            inputs: vec![Input::floats("INPUT0", vec![2], &[1.5, -2.0])],
            outputs: &["OUTPUT0"],
        }
    }

    #[test]
    fn what_is_sent_says_how_long_its_parts_are() {
        let json = question().request(Wire::Json).unwrap();
        let said: Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(said["inputs"][0]["data"], json!([1.5, -2.0]));
        let binary = question().request(Wire::Binary).unwrap();
        let length: usize = binary.headers[1].1.parse().unwrap();
        assert_eq!(floats(&binary.body[length..]).unwrap(), [1.5, -2.0]);
        let grpc = question().request(Wire::Grpc).unwrap();
        assert_eq!(grpc.body[4] as usize, grpc.body.len() - 5);
    }

    #[test]
    fn answers_of_all_three_wires_are_read() {
        let raw: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let json = br#"{"outputs":[{"data":[1.5,-2]}]}"#;
        assert_eq!(rest_answer(json, json.len()).unwrap(), [1.5, -2.0]);
        let head = br#"{"outputs":[{"parameters":{"binary_data_size":8}}]}"#;
        let binary = [head.as_slice(), &raw].concat();
        assert_eq!(rest_answer(&binary, head.len()).unwrap(), [1.5, -2.0]);
        assert!(rest_answer(&binary[..binary.len() - 1], head.len()).is_err());
        let message = Message::new().text(1, "m").bytes(6, &raw).into_bytes();
        let grpc = [&[0; 5], message.as_slice()].concat();
        assert_eq!(grpc_answer(&grpc).unwrap(), [1.5, -2.0]);
        assert!(grpc_answer(&grpc[..grpc.len() - 1]).is_err());
        assert!(grpc_answer(&[]).is_err());
    }
}
