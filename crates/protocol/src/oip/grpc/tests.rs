use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use prost::Message as _;

use super::*;
use crate::oip::proto::infer_parameter::ParameterChoice;
use crate::oip::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::oip::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use crate::tensor::ALIGNMENT;
use crate::{
    ApiError, DataType, IndexEntry, InferResponse, ModelMetadata, ModelState, Parameter, Tensor,
    TensorSpec,
};

mod roundtrip;

/// A body as it comes from the network: one `Bytes` a frame.
struct Frames(VecDeque<Bytes>);

impl Frames {
    fn cut(whole: &[u8], sizes: &[usize]) -> Self {
        let mut rest = whole;
        let mut frames = VecDeque::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (frame, after) = rest.split_at(rest.len().min((*size).max(1)));
            frames.push_back(Bytes::copy_from_slice(frame));
            rest = after;
        }
        Self(frames)
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |frame| frame)
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.0.front_mut().expect("no more than remains");
            let step = front.len().min(count);
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&[u8]]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs,
        raw_input_contents: raw.iter().map(|raw| Bytes::copy_from_slice(raw)).collect(),
        ..ModelInferRequest::default()
    }
}

fn typed(name: &str, datatype: &str, contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor {
        contents: Some(contents),
        ..input(name, datatype, &[2])
    }
}

fn decode_infer(frames: impl Buf, pool: &BufferPool) -> Result<InferRequest, ApiError> {
    super::decode_infer(frames, pool).and_then(infer_request)
}

fn infer_request(message: ModelInferRequest) -> Result<InferRequest, ApiError> {
    super::infer_request(message, Vec::new()).map(|(request, _)| request)
}

fn error_of(message: ModelInferRequest) -> String {
    infer_request(message).map_or_else(|error| error.message, |_| String::new())
}

#[test]
fn raw_tensors_are_aligned_in_a_pooled_buffer() {
    let floats: Vec<u8> = (0..5_000_u32)
        .flat_map(|n| (n as f32).to_le_bytes())
        .collect();
    let message = request(vec![input("x", "FP32", &[5_000])], &[&floats]);
    let pool = BufferPool::default();
    let frames = Frames::cut(&message.encode_to_vec(), &[1, 7, 4096, 16_384]);
    let decoded = decode_infer(frames, &pool).expect("a valid request");
    let data = &decoded.inputs[0].data;
    assert_eq!(data.as_ptr().align_offset(ALIGNMENT), 0);
    assert_eq!(data, &floats);
    assert_eq!(pool.idle_bytes(), 0);
    drop(decoded);
    assert!(pool.idle_bytes() >= floats.len(), "the buffer comes back");
}

#[test]
fn every_typed_list_becomes_its_bytes() {
    let c = InferTensorContents::default;
    #[rustfmt::skip]
    let cases: Vec<(&str, InferTensorContents, Vec<u8>)> = vec![
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..c() }, vec![1, 0]),
        ("INT8", InferTensorContents { int_contents: vec![-1, 127], ..c() }, vec![255, 127]),
        ("INT16", InferTensorContents { int_contents: vec![-2, 256], ..c() }, vec![254, 255, 0, 1]),
        ("INT32", InferTensorContents { int_contents: vec![1, -1], ..c() }, vec![1, 0, 0, 0, 255, 255, 255, 255]),
        ("UINT8", InferTensorContents { uint_contents: vec![0, 255], ..c() }, vec![0, 255]),
        ("UINT16", InferTensorContents { uint_contents: vec![1, 65_535], ..c() }, vec![1, 0, 255, 255]),
        ("UINT32", InferTensorContents { uint_contents: vec![1, 2], ..c() }, vec![1, 0, 0, 0, 2, 0, 0, 0]),
        ("INT64", InferTensorContents { int64_contents: vec![1, -1], ..c() }, [1_i64, -1].map(i64::to_le_bytes).concat()),
        ("UINT64", InferTensorContents { uint64_contents: vec![1, u64::MAX], ..c() }, [1, u64::MAX].map(u64::to_le_bytes).concat()),
        ("FP32", InferTensorContents { fp32_contents: vec![0.5, -1.0], ..c() }, [0.5_f32, -1.0].map(f32::to_le_bytes).concat()),
        ("FP64", InferTensorContents { fp64_contents: vec![0.5, -1.0], ..c() }, [0.5_f64, -1.0].map(f64::to_le_bytes).concat()),
        ("BYTES", InferTensorContents { bytes_contents: vec![Bytes::from("ab"), Bytes::new()], ..c() }, vec![2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]),
    ];
    for (datatype, contents, expected) in cases {
        let decoded = infer_request(request(vec![typed("x", datatype, contents)], &[]));
        let tensor = decoded.expect(datatype).inputs.remove(0);
        assert_eq!(tensor.data, expected, "{datatype}");
        assert_eq!(tensor.dtype.name(), datatype);
    }
}

#[test]
fn what_is_wrong_with_an_input_is_said_with_its_name() {
    let ints = || InferTensorContents {
        int_contents: vec![1, 300],
        ..InferTensorContents::default()
    };
    let floats = || InferTensorContents {
        fp32_contents: vec![1.0, 2.0],
        ..InferTensorContents::default()
    };
    let i32s = |name| input(name, "INT32", &[1]);
    #[rustfmt::skip]
    let cases = [
        (request(vec![typed("x", "INT32", ints()), i32s("y")], &[&[0; 4]]),
         "contents field must not be specified when using raw_input_contents for 'x' for model 'm'"),
        (request(vec![i32s("x"), i32s("y")], &[&[0; 4]]),
         "unable to find data for input tensor 'y' for model 'm' in request."),
        (request(vec![i32s("x")], &[&[0; 4], &[0; 4]]),
         "2 raw input contents for model 'm', but its inputs need 1"),
        (request(vec![typed("x", "FP32", ints())], &[]),
         "unexpected explicit tensor data for input tensor 'x' for model 'm' of type 'INT32', expected datatype 'FP32'"),
        (request(vec![typed("x", "FP16", floats())], &[]),
         "unexpected explicit tensor data for input tensor 'x' for model 'm' of type 'FP32', expected datatype 'FP16'"),
        (request(vec![typed("x", "INT8", ints())], &[]),
         "input `x`: element 1 is 300, which INT8 cannot hold"),
        (request(vec![input("x", "INT33", &[1])], &[&[0; 4]]),
         "input `x`: unknown datatype `INT33`; did you mean `INT32`?"),
        (request(vec![input("x", "INT32", &[1, -1])], &[&[0; 4]]),
         "input `x`: dimension -1 of shape [1, -1]; a request's shape has no negative dimensions"),
        (request(vec![input("x", "INT32", &[2])], &[&[0; 4]]),
         "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4"),
        (request(vec![input("x", "BYTES", &[1])], &[&[9, 0, 0, 0, 1]]),
         "incomplete string data for inference input 'x' for model 'm', expecting string of length 9 but only 1 bytes available. Please make sure the string data is in one buffer."),
        (request(vec![input("x", "INT64", &[i64::MAX, 2])], &[&[0; 4]]),
         "tensor `x`: shape [9223372036854775807, 2] has more elements than can be addressed"),
    ];
    for (message, expected) in cases {
        assert_eq!(error_of(message), expected);
    }
}

fn in_region(mut tensor: InferInputTensor, bytes: i64) -> InferInputTensor {
    for (key, choice) in [
        (
            "shared_memory_region",
            ParameterChoice::StringParam("r".into()),
        ),
        (
            "shared_memory_byte_size",
            ParameterChoice::Int64Param(bytes),
        ),
    ] {
        let parameter_choice = Some(choice);
        let parameter = InferParameter { parameter_choice };
        tensor.parameters.insert(key.into(), parameter);
    }
    tensor
}

#[test]
fn raw_contents_count_only_the_inputs_that_need_them() {
    let message = request(
        vec![
            in_region(input("a", "INT32", &[1]), 4),
            input("b", "UINT8", &[2]),
        ],
        &[&[8, 9]],
    );
    let places = shared_inputs(&message).expect("one place");
    assert_eq!((places[0].region.as_str(), places[0].bytes), ("r", 4));
    let read = vec![Bytes::from_static(&[1, 2, 3, 4])];
    let (decoded, placement) = super::infer_request(message, read).expect("valid");
    assert!(placement.is_empty());
    assert_eq!(&decoded.inputs[0].data[..], [1, 2, 3, 4]);
    assert_eq!(&decoded.inputs[1].data[..], [8, 9]);
}

#[test]
fn an_input_in_shared_memory_has_its_size_and_nothing_beside() {
    let wrong = request(vec![in_region(input("a", "INT32", &[2]), 4)], &[]);
    let refused = shared_inputs(&wrong).expect_err("too small");
    assert_eq!(
        refused.message,
        "input byte size mismatch for input 'a' for model 'm'. Expected 8, got 4"
    );
    let both = in_region(typed("a", "INT32", InferTensorContents::default()), 8);
    let refused = super::infer_request(request(vec![both], &[]), vec![Bytes::new()]);
    let refused = refused.expect_err("given twice").message;
    assert!(
        refused.contains("unexpected 'contents' provided"),
        "{refused}"
    );
}

#[test]
fn a_length_beyond_the_body_is_an_error_and_not_an_allocation() {
    // Field 7, then a claim of 1 GiB, 2^63 bytes, and a varint that never ends.
    for claim in [
        &b"\x3a\x80\x80\x80\x80\x04"[..],
        b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0a\x80\x80\x80\x80\x04",
        b"\x2a\x05\x0a",
    ] {
        let refused = decode_infer(claim, &BufferPool::new(0)).expect_err("nothing is there");
        assert_eq!(refused.kind, base::ErrorKind::Invalid, "{refused}");
    }
}

#[test]
fn a_flood_of_empty_inputs_is_refused() {
    let flood = b"\x2a\x00".repeat(20_000);
    let refused = decode_infer(&flood[..], &BufferPool::new(0)).expect_err("too many");
    assert_eq!(
        refused.message,
        "a request has at most 16384 inputs and as many outputs"
    );
}

#[test]
fn a_small_body_with_many_dimensions_or_texts_is_refused_before_it_is_decoded() {
    let refused = |input: InferInputTensor| {
        let encoded = request(vec![input], &[]).encode_to_vec();
        decode_infer(&encoded[..], &BufferPool::new(0)).expect_err("too many")
    };
    let rank = "a shape has at most 64 dimensions";
    assert_eq!(refused(input("x", "INT8", &[1; 65])).message, rank);
    // Unpacked: `inputs` with one field `shape` for each dimension.
    let unpacked = [&b"\x2a\x82\x01"[..], &b"\x18\x01".repeat(65)].concat();
    let error = decode_infer(&unpacked[..], &BufferPool::new(0)).expect_err("too many");
    assert_eq!(error.message, rank);
    let by_message = request(vec![input("x", "INT8", &[1; 65])], &[&[0]]);
    assert_eq!(error_of(by_message), format!("input `x`: {rank}"));
    let most = request(vec![input("x", "INT8", &[1; 64])], &[&[0]]).encode_to_vec();
    assert!(decode_infer(&most[..], &BufferPool::new(0)).is_ok());

    let texts = InferTensorContents {
        bytes_contents: vec![Bytes::new(); (1 << 20) + 1],
        ..InferTensorContents::default()
    };
    assert_eq!(
        refused(typed("x", "BYTES", texts)).message,
        "a request has at most 1048576 elements in `bytes_contents`; send more in `raw_input_contents`"
    );
}

#[test]
fn what_a_client_sent_is_not_sent_back_whole() {
    let long = "x".repeat(20_000);
    for message in [
        request(vec![input(&long, "INT8", &[2])], &[&[0]]),
        request(vec![input(&long, &long, &[2])], &[&[0]]),
        request(vec![input(&long, "INT64", &[i64::MAX; 64])], &[&[0]]),
        request(vec![input(&long, "INT64", &[-1; 64])], &[&[0]]),
        request(vec![input(&long, "INT8", &[2])], &[]),
    ] {
        let error = error_of(message);
        assert!(error.contains('…') && error.len() < 700, "{error}");
    }
}

#[test]
fn an_outputs_parameters_say_where_it_goes_and_what_it_becomes() {
    let parameter = |choice| InferParameter {
        parameter_choice: Some(choice),
    };
    let output = |parameters: &[(&str, ParameterChoice)]| {
        let parameters = parameters.iter().cloned();
        InferRequestedOutputTensor {
            name: "y".into(),
            parameters: parameters
                .map(|(key, choice)| (key.to_owned(), parameter(choice)))
                .collect(),
        }
    };
    let with = |outputs| ModelInferRequest {
        outputs,
        ..request(vec![], &[])
    };
    let region = (
        "shared_memory_region",
        ParameterChoice::StringParam("r".into()),
    );
    let bytes = ("shared_memory_byte_size", ParameterChoice::Int64Param(8));
    let classes = ("classification", ParameterChoice::Int64Param(3));
    let (classified, _) = super::infer_request(
        with(vec![output(std::slice::from_ref(&classes))]),
        Vec::new(),
    )
    .expect("valid");
    let parameters = &classified.outputs[0].parameters;
    assert_eq!(parameters["classification"], Parameter::Int(3));
    let placed = with(vec![output(&[region.clone(), bytes.clone()])]);
    let (request, placement) = super::infer_request(placed, Vec::new()).expect("valid");
    assert!(request.outputs[0].parameters.is_empty());
    assert_eq!(placement["y"].bytes, 8);
    let outputs = vec![
        Tensor::new("y", DataType::Uint8, vec![2], Bytes::from_static(&[1, 2])).expect("valid"),
        Tensor::new("z", DataType::Uint8, vec![1], Bytes::from_static(&[3])).expect("valid"),
    ];
    let sent = encode_infer(response(outputs), &placement).concat();
    let read = ModelInferResponse::decode(&sent[..]).expect("a message");
    assert_eq!(read.raw_output_contents, [&b""[..], &[3]]);
    let written = &read.outputs[0].parameters["shared_memory_byte_size"];
    assert_eq!(*written, parameter(ParameterChoice::Int64Param(2)));
    for (given, part) in [
        (vec![region.clone()], "must be specified"),
        (vec![region, bytes, classes], "cannot go to shared memory"),
        (
            vec![("classification", ParameterChoice::Int64Param(-1))],
            "invalid value type",
        ),
    ] {
        let refused = infer_request(with(vec![output(&given)])).expect_err(part);
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    let twice = infer_request(with(vec![output(&[]), output(&[])])).expect("given once");
    assert_eq!(twice.outputs.len(), 1);
}

#[test]
fn only_the_server_sets_parameters_of_tritons() {
    for (key, allowed) in [
        ("triton_enable_empty_final_response", true),
        ("triton_final_response", false),
    ] {
        let value = InferParameter {
            parameter_choice: Some(ParameterChoice::BoolParam(true)),
        };
        let message = ModelInferRequest {
            parameters: [(key.to_owned(), value)].into(),
            ..request(vec![], &[])
        };
        assert_eq!(infer_request(message).is_ok(), allowed, "{key}");
    }
}

#[test]
fn parameters_of_every_type_arrive() {
    let choices = [
        ("b", ParameterChoice::BoolParam(true), Parameter::Bool(true)),
        (
            "d",
            ParameterChoice::DoubleParam(0.5),
            Parameter::Double(0.5),
        ),
        ("i", ParameterChoice::Int64Param(-1), Parameter::Int(-1)),
        (
            "s",
            ParameterChoice::StringParam("x".into()),
            Parameter::Text("x".into()),
        ),
        (
            "u",
            ParameterChoice::Uint64Param(u64::MAX),
            Parameter::Uint(u64::MAX),
        ),
    ];
    let mut message = request(vec![], &[]);
    for (name, choice, _) in choices.clone() {
        let parameter_choice = Some(choice);
        message
            .parameters
            .insert(name.into(), InferParameter { parameter_choice });
    }
    let decoded = infer_request(message.clone()).expect("valid");
    for (name, _, expected) in choices {
        assert_eq!(decoded.parameters[name], expected);
    }
    message
        .parameters
        .insert("none".into(), InferParameter::default());
    assert_eq!(
        error_of(message),
        "parameter `none` of the request has no value"
    );
}

fn response(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        model: "m".into(),
        version: "1".into(),
        id: Some("7".into()),
        parameters: [("p".to_owned(), Parameter::Int(1))].into(),
        outputs,
    }
}

#[test]
fn large_outputs_are_sent_without_a_copy() -> Result<(), Box<dyn std::error::Error>> {
    let large = Bytes::from(vec![7; 100_000]);
    let outputs = vec![
        Tensor::new(
            "small",
            DataType::Uint8,
            vec![2],
            Bytes::from_static(&[1, 2]),
        )?,
        Tensor::new("large", DataType::Uint8, vec![100_000], large.clone())?,
        Tensor::new("last", DataType::Uint8, vec![1], Bytes::from_static(&[3]))?,
    ];
    let pieces = encode_infer(response(outputs.clone()), &crate::oip::Placement::new());
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[1].as_ptr(), large.as_ptr());
    let whole = pieces.concat();
    let read = ModelInferResponse::decode(&whole[..])?;
    assert_eq!(read.encode_to_vec(), whole);
    let names: Vec<_> = read.outputs.iter().map(|output| &output.name).collect();
    assert_eq!(names, ["small", "large", "last"]);
    let data: Vec<_> = outputs.into_iter().map(|tensor| tensor.data).collect();
    assert_eq!(read.raw_output_contents, data);
    Ok(())
}

#[test]
fn metadata_and_index_say_what_the_rest_door_says() {
    let server = server_metadata("1.2.3");
    let rest: serde_json::Value =
        serde_json::from_slice(&crate::oip::rest::server_metadata("1.2.3")).expect("JSON");
    assert_eq!(rest["name"], server.name);
    assert_eq!(rest["version"], server.version);
    assert_eq!(rest["extensions"], serde_json::json!(server.extensions));

    let spec = |name: &str| TensorSpec::new(name, DataType::Bf16, vec![-1, 2]);
    let model = model_metadata(ModelMetadata {
        name: "m".into(),
        versions: vec!["1".into()],
        platform: "onnxruntime_onnx".into(),
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
    });
    assert_eq!(model.inputs[0].datatype, "BF16");
    assert_eq!(model.outputs[0].shape, [-1, 2]);

    let index = repository_index(vec![IndexEntry {
        name: "m".into(),
        version: "2".into(),
        state: ModelState::Unavailable,
        reason: "broken".into(),
    }]);
    assert_eq!(index.models[0].state, "UNAVAILABLE");
    assert_eq!(index.models[0].reason, "broken");
}

#[test]
fn the_corpus_is_survived() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/grpc_infer");
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let data = std::fs::read(entry.expect("a file").path()).expect("readable");
        fuzz_grpc_infer(&data);
        for cut in 0..data.len().min(200) {
            fuzz_grpc_infer(&data[..cut]);
        }
        seeds += 1;
    }
    assert!(seeds >= 20, "{seeds}");
}
