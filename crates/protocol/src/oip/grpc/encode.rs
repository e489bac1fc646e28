use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::parameters;
use crate::oip::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::oip::proto::model_infer_response::InferOutputTensor;
use crate::oip::proto::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::oip::shared::{Placement, Shared};
use crate::{InferRequest, InferResponse, Parameter, Tensor};

const RAW_OUTPUT_CONTENTS: u32 = 6;
const RAW_INPUT_CONTENTS: u32 = 7;

/// Of `ModelStreamInferResponse`.
const INFER_RESPONSE: u32 = 2;

/// By this a client knows that nothing follows.
const FINAL_RESPONSE: &str = "triton_final_response";

/// Below this a copy is cheaper than another frame.
const COPY_BYTES_MAX: usize = 4096;

/// The encoded `ModelInferResponse` in pieces to be sent one after the other; large outputs are not copied. Of outputs
/// that went to shared memory it says where they are.
pub fn encode_infer(response: InferResponse, placement: &Placement) -> Vec<Bytes> {
    let (message, raw) = split(response, placement);
    let mut pieces = Pieces::default();
    write_parts(&message, raw, &mut pieces);
    pieces.finish()
}

/// The encoded `ModelStreamInferResponse` around one answer, in pieces. `last` is whether nothing follows for its
/// request.
pub fn encode_streamed(
    mut response: InferResponse,
    placement: &Placement,
    last: bool,
) -> Vec<Bytes> {
    let parameters = &mut response.parameters;
    parameters.insert(FINAL_RESPONSE.to_owned(), Parameter::Bool(last));
    let inner = encode_infer(response, placement);
    let mut head = BytesMut::with_capacity(12);
    encode_key(INFER_RESPONSE, WireType::LengthDelimited, &mut head);
    let bytes: usize = inner.iter().map(Bytes::len).sum();
    encode_varint(bytes as u64, &mut head);
    let mut pieces = Vec::with_capacity(inner.len() + 1);
    pieces.push(head.freeze());
    pieces.extend(inner);
    pieces
}

/// The same around what went wrong with one request of a stream; its id says with which.
pub fn encode_stream_error(id: &str, message: &str) -> Bytes {
    let response = ModelStreamInferResponse {
        error_message: message.to_owned(),
        infer_response: Some(ModelInferResponse {
            id: id.to_owned(),
            ..ModelInferResponse::default()
        }),
    };
    response.encode_to_vec().into()
}

fn write_parts(message: &ModelInferResponse, raw: Vec<Bytes>, pieces: &mut Pieces) {
    pieces.open.reserve(message.encoded_len());
    message.encode_raw(&mut pieces.open);
    for data in raw {
        encode_key(
            RAW_OUTPUT_CONTENTS,
            WireType::LengthDelimited,
            &mut pieces.open,
        );
        encode_varint(data.len() as u64, &mut pieces.open);
        pieces.push(data);
    }
}

/// The message without tensor bytes, and the tensor bytes.
fn split(response: InferResponse, placement: &Placement) -> (ModelInferResponse, Vec<Bytes>) {
    let outputs = response.outputs.into_iter();
    let (outputs, raw) = outputs
        .map(|tensor| {
            let place = placement.get(&tensor.name);
            output(tensor, place)
        })
        .unzip();
    let message = ModelInferResponse {
        model_name: response.model,
        model_version: response.version,
        id: response.id.unwrap_or_default(),
        parameters: parameters::write(response.parameters),
        outputs,
        raw_output_contents: Vec::new(),
    };
    (message, raw)
}

/// Every output has raw contents, if empty ones: clients count them to find theirs.
fn output(tensor: Tensor, place: Option<&Shared>) -> (InferOutputTensor, Bytes) {
    let written = place.map(|place| parameters::write(place.parameters(tensor.data.len() as u64)));
    let described = InferOutputTensor {
        name: tensor.name,
        datatype: tensor.dtype.name().to_owned(),
        shape: tensor.shape.into_iter().map(wide).collect(),
        parameters: written.unwrap_or_default(),
        ..InferOutputTensor::default()
    };
    let data = if place.is_some() {
        Bytes::new()
    } else {
        tensor.data
    };
    (described, data)
}

/// A request's message, with the tensors' bytes behind it.
pub fn encode_request(request: InferRequest) -> Vec<Bytes> {
    let (inputs, raw): (Vec<_>, Vec<_>) = request
        .inputs
        .into_iter()
        .map(|tensor| {
            let described = InferInputTensor {
                name: tensor.name,
                datatype: tensor.dtype.name().to_owned(),
                shape: tensor.shape.into_iter().map(wide).collect(),
                ..InferInputTensor::default()
            };
            (described, tensor.data)
        })
        .unzip();
    let outputs = request
        .outputs
        .into_iter()
        .map(|output| InferRequestedOutputTensor {
            name: output.name,
            parameters: parameters::write(output.parameters),
        });
    let message = ModelInferRequest {
        model_name: request.model,
        model_version: request.version.unwrap_or_default(),
        id: request.id.unwrap_or_default(),
        parameters: parameters::write(request.parameters),
        inputs,
        outputs: outputs.collect(),
        raw_input_contents: Vec::new(),
    };
    let mut pieces = Pieces::default();
    pieces.open.reserve(message.encoded_len());
    message.encode_raw(&mut pieces.open);
    for data in raw {
        encode_key(
            RAW_INPUT_CONTENTS,
            WireType::LengthDelimited,
            &mut pieces.open,
        );
        encode_varint(data.len() as u64, &mut pieces.open);
        pieces.push(data);
    }
    pieces.finish()
}

/// A dimension above `i64::MAX` cannot hold any data and so cannot occur.
fn wide(dim: usize) -> i64 {
    i64::try_from(dim).unwrap_or(i64::MAX)
}

/// Bytes to send in order: small parts collect in `open`, large ones are kept by reference.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Pieces {
    fn push(&mut self, data: Bytes) {
        if data.len() <= COPY_BYTES_MAX {
            self.open.put_slice(&data);
        } else {
            self.done.push(self.open.split().freeze());
            self.done.push(data);
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}
