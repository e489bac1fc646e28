use base::ErrorKind;
use bytes::Bytes;

use super::*;
use crate::{
    ApiError, BufferPool, DataType, InferRequest, InferResponse, Parameter, Tensor, TensorSpec,
};

mod places;
mod refused;
mod round_trip;

fn read(json: &str, binary: &[&[u8]]) -> Result<(InferRequest, ResponseForm), ApiError> {
    let header = parse_header(json.as_bytes())?;
    let binary = binary
        .iter()
        .map(|&part| Bytes::copy_from_slice(part))
        .collect();
    header.into_request("m", Some("1"), binary, &BufferPool::default())
}

/// One input `x` with this type, shape and data.
fn tensor(dtype: &str, shape: &str, data: &str) -> Result<Tensor, ApiError> {
    let json = format!(
        r#"{{"inputs":[{{"data":{data},"name":"x","shape":{shape},"datatype":"{dtype}"}}]}}"#
    );
    read(&json, &[]).map(|(request, _)| request.inputs[0].clone())
}

fn bytes<const N: usize, T>(elements: &[T], write: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    elements.iter().flat_map(write).collect()
}

#[test]
fn a_request_is_read_whole() {
    let json = r#"{
        "id": "7", "unknown": {"a": [1]},
        "parameters": {"priority": 1, "big": 18446744073709551615, "flag": true, "f": 0.5, "s": "t", "binary_data_output": true},
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "b", "shape": [1, 2], "datatype": "INT64", "data": [[-1, 2]]},
            {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
        ],
        "outputs": [{"name": "y"}, {"name": "z", "parameters": {"binary_data": false, "k": 1}}, {"name": "y"}]
    }"#;
    let header = parse_header(json.as_bytes()).expect("legal");
    assert_eq!(header.binary_plan(), [8, 5]);
    let (request, form) = read(json, &[&[1; 8], b"\x01\0\0\0x"]).expect("legal");
    assert_eq!(
        (request.model.as_str(), request.version.as_deref()),
        ("m", Some("1"))
    );
    assert_eq!(request.id.as_deref(), Some("7"));
    let parameters: Vec<_> = request.parameters.into_iter().collect();
    assert_eq!(
        parameters,
        [
            ("big".to_owned(), Parameter::Uint(u64::MAX)),
            ("f".to_owned(), Parameter::Double(0.5)),
            ("flag".to_owned(), Parameter::Bool(true)),
            ("priority".to_owned(), Parameter::Int(1)),
            ("s".to_owned(), Parameter::Text("t".to_owned())),
        ]
    );
    assert_eq!(request.inputs[0].data, Bytes::from_static(&[1; 8]));
    assert_eq!(request.inputs[1].elements::<i64>(), Some(&[-1, 2][..]));
    assert_eq!(request.inputs[2].shape, [1]);
    let outputs: Vec<_> = request
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    assert_eq!(outputs, ["y", "z"]);
    assert_eq!(request.outputs[1].parameters["k"], Parameter::Int(1));
    assert!(form.wants_binary("y") && !form.wants_binary("z"));
}

#[test]
fn every_type_is_read_from_json() {
    let cases = [
        ("BOOL", "[true, false, 1, 0]", vec![1, 0, 1, 0]),
        ("UINT8", "[0,255,-0,7]", vec![0, 255, 0, 7]),
        (
            "INT8",
            "[-128,127,-0,7]",
            bytes(&[-128_i8, 127, 0, 7], |n| n.to_le_bytes()),
        ),
        (
            "UINT16",
            "[0,65535,1,2]",
            bytes(&[0_u16, 65535, 1, 2], |n| n.to_le_bytes()),
        ),
        (
            "INT16",
            "[-32768,32767,1,2]",
            bytes(&[-32768_i16, 32767, 1, 2], |n| n.to_le_bytes()),
        ),
        (
            "UINT32",
            "[0,4294967295,1,2]",
            bytes(&[0_u32, u32::MAX, 1, 2], |n| n.to_le_bytes()),
        ),
        (
            "INT32",
            "[-2147483648,2147483647,1,2]",
            bytes(&[i32::MIN, i32::MAX, 1, 2], |n| n.to_le_bytes()),
        ),
        (
            "UINT64",
            "[0,18446744073709551615,1,2]",
            bytes(&[0, u64::MAX, 1, 2], |n| n.to_le_bytes()),
        ),
        (
            "INT64",
            "[-9223372036854775808,9223372036854775807,1,2]",
            bytes(&[i64::MIN, i64::MAX, 1, 2], |n| n.to_le_bytes()),
        ),
        (
            "FP32",
            "[0.1,-1E-3,3,-0]",
            bytes(&[0.1_f32, -1e-3, 3.0, -0.0], |n| n.to_le_bytes()),
        ),
        (
            "FP64",
            "[0.1,1e308,-3,0.0]",
            bytes(&[0.1_f64, 1e308, -3.0, 0.0], |n| n.to_le_bytes()),
        ),
        (
            "BYTES",
            r#"["a","","\u00e9\n","]["]"#,
            b"\x01\0\0\0a\0\0\0\0\x03\0\0\0\xc3\xa9\n\x02\0\0\0][".to_vec(),
        ),
    ];
    for (dtype, data, expected) in cases {
        let read = tensor(dtype, "[4]", data).expect(dtype);
        assert_eq!(read.data, expected, "{dtype}");
        assert_eq!(
            read.data.as_ptr().align_offset(crate::tensor::ALIGNMENT),
            0,
            "{dtype}"
        );
    }
}

#[test]
fn brackets_may_follow_the_shape_or_be_left_out() {
    for (shape, data) in [
        ("[2,3]", "[1,2,3,4,5,6]"),
        ("[2,3]", "[[1,2,3],[4,5,6]]"),
        ("[2,3]", " [ [1,2,3,4,5,6] ] "),
        ("[1,2,3]", "[[1,2,3],[4,5,6]]"),
        ("[2,3]", "[[[1],[2],[3]],[[4],[5],[6]]]"),
        ("[6]", "[[1,2,3,4,5,6]]"),
    ] {
        let read = tensor("UINT8", shape, data).expect(data);
        assert_eq!(&read.data[..], [1, 2, 3, 4, 5, 6], "{data}");
    }
    for (shape, data) in [
        ("[0]", "[]"),
        ("[2,0]", "[[],[]]"),
        ("[0,2]", "[]"),
        ("[2,0]", "[]"),
    ] {
        assert!(tensor("FP32", shape, data).expect(data).data.is_empty());
    }
    for data in ["5", "[5]", "[[5]]"] {
        assert_eq!(
            &tensor("UINT8", "[]", data).expect(data).data[..],
            [5],
            "{data}"
        );
    }
    // Triton's own test wants 50 levels accepted and 120 refused.
    let nested = |depth| "[".repeat(depth) + "5" + &"]".repeat(depth);
    assert!(tensor("INT64", "[1,1]", &nested(50)).is_ok());
    let error = tensor("INT64", "[1,1]", &nested(120)).expect_err("too deep");
    assert!(
        error
            .message
            .contains("JSON nesting depth exceeds maximum allowed limit (100)")
    );
}

#[test]
fn what_is_given_back_is_given_back_as_asked() {
    let output = |name: &str, dtype, shape: &[usize], data: Vec<u8>| {
        Tensor::new(name, dtype, shape.to_vec(), Bytes::from(data)).expect("fits")
    };
    let response = InferResponse {
        model: "m".to_owned(),
        version: "3".to_owned(),
        id: Some("i\"d".to_owned()),
        parameters: [("ok".to_owned(), Parameter::Bool(true))].into(),
        outputs: vec![
            output(
                "f",
                DataType::Fp32,
                &[1, 2],
                bytes(&[0.1_f32, -2.0], |n| n.to_le_bytes()),
            ),
            output("s", DataType::Bytes, &[1], b"\x02\0\0\0\"\n".to_vec()),
            output("h", DataType::Fp16, &[1], vec![0, 60]),
        ],
    };
    let mut form = ResponseForm::default();
    form.outputs.insert("h".to_owned(), true);
    let encoded = encode(&response, &form).expect("legal");
    let json = r#"{"model_name":"m","model_version":"3","id":"i\"d","parameters":{"ok":true},"outputs":[{"name":"f","datatype":"FP32","shape":[1,2],"data":[0.1,-2.0]},{"name":"s","datatype":"BYTES","shape":[1],"data":["\"\n"]},{"name":"h","datatype":"FP16","shape":[1],"parameters":{"binary_data_size":2}}]}"#;
    assert_eq!(String::from_utf8_lossy(&encoded.json), json);
    assert_eq!(encoded.header_length, Some(json.len()));
    // Passed on, not copied.
    assert_eq!(
        encoded.binary[0].as_ptr(),
        response.outputs[2].data.as_ptr()
    );

    form.outputs.clear();
    let error = encode(&response, &form).expect_err("FP16 has no JSON");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.starts_with("output `h`: sending FP16 data via JSON is not supported. Please use the binary data format for output h"), "{error}");
    let bad = InferResponse {
        outputs: vec![output(
            "s",
            DataType::Bytes,
            &[1],
            b"\x01\0\0\0\xff".to_vec(),
        )],
        ..InferResponse::default()
    };
    let error = encode(&bad, &form).expect_err("not UTF-8");
    assert_eq!(
        error.message,
        "output `s`: element 0 is not UTF-8, which JSON cannot carry; ask for `binary_data`: true"
    );
    let odd = InferResponse {
        outputs: vec![output(
            "f",
            DataType::Fp64,
            &[3],
            bytes(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY], |n| {
                n.to_le_bytes()
            }),
        )],
        ..InferResponse::default()
    };
    let encoded = encode(&odd, &form).expect("as Triton writes it");
    assert!(
        encoded
            .json
            .ends_with(br#""data":[NaN,Infinity,-Infinity]}]}"#)
    );
    assert_eq!(encoded.header_length, None);
}

#[test]
fn the_small_answers_are_what_clients_read() {
    let text = |body: Vec<u8>| String::from_utf8(body).expect("UTF-8");
    assert_eq!(text(live(true)), r#"{"live":true}"#);
    assert_eq!(text(ready(false)), r#"{"ready":false}"#);
    assert_eq!(text(model_ready("m", true)), r#"{"name":"m","ready":true}"#);
    let server: serde_json::Value = serde_json::from_slice(&server_metadata("1.2")).expect("JSON");
    assert_eq!(
        (&server["name"], &server["version"]),
        (&"kapok".into(), &"1.2".into())
    );
    let extensions = server["extensions"].as_array().expect("a list");
    assert!(extensions.contains(&"binary_tensor_data".into()));
    let model = crate::ModelMetadata {
        name: "m".to_owned(),
        versions: vec!["1".to_owned()],
        platform: "onnxruntime_onnx".to_owned(),
        inputs: vec![TensorSpec::new("x", DataType::Fp32, vec![-1, 3])],
        outputs: vec![],
    };
    assert_eq!(
        text(metadata(&model)),
        r#"{"name":"m","versions":["1"],"platform":"onnxruntime_onnx","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[]}"#
    );
    let entry = crate::IndexEntry {
        name: "m".to_owned(),
        version: "1".to_owned(),
        state: crate::ModelState::Ready,
        reason: String::new(),
    };
    assert_eq!(
        text(index(&[entry])),
        r#"[{"name":"m","version":"1","state":"READY","reason":""}]"#
    );
}

#[test]
fn statistics_have_every_field_that_perf_analyzer_reads() {
    use crate::oip::proto;
    let spent = |count, ns| Some(proto::StatisticDuration { count, ns });
    let model = proto::ModelStatistics {
        name: "m".to_owned(),
        version: "1".to_owned(),
        last_inference: 5,
        inference_count: u64::MAX,
        execution_count: 2,
        inference_stats: Some(proto::InferStatistics {
            success: spent(3, 9_007_199_254_740_993),
            ..proto::InferStatistics::default()
        }),
        batch_stats: vec![proto::InferBatchStatistics {
            batch_size: 4,
            compute_infer: spent(1, 2),
            ..proto::InferBatchStatistics::default()
        }],
        ..proto::ModelStatistics::default()
    };
    let json: serde_json::Value = serde_json::from_slice(&statistics(&[model])).expect("JSON");
    let model = &json["model_stats"][0];
    assert_eq!(model["inference_count"], u64::MAX);
    assert_eq!(
        model["inference_stats"]["success"]["ns"],
        9_007_199_254_740_993_u64
    );
    for phase in [
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    ] {
        assert_eq!(
            model["inference_stats"][phase],
            serde_json::json!({"count": 0, "ns": 0}),
            "{phase}"
        );
    }
    assert_eq!(model["batch_stats"][0]["compute_infer"]["ns"], 2);
    assert!(model["response_stats"].is_object() && model["memory_usage"].is_array());
}
