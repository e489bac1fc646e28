//! Tensors that are the whole body, or in shared memory.

use bytes::Bytes;

use crate::oip::rest::{encode, parse_header, raw_request};
use crate::{BufferPool, DataType, InferResponse, ModelMetadata, TensorSpec};

#[test]
fn a_raw_request_is_what_the_model_makes_of_it() {
    let spec = |dtype, shape: &[i64]| TensorSpec::new("x", dtype, shape.to_vec());
    let read = |inputs: Vec<TensorSpec>, batches, bytes: usize| {
        let metadata = ModelMetadata {
            name: "m".into(),
            versions: Vec::new(),
            platform: String::new(),
            inputs,
            outputs: Vec::new(),
        };
        raw_request(&metadata, None, batches, Bytes::from(vec![b'a'; bytes]))
            .map(|(request, form)| {
                assert!(form.wants_binary("any"));
                let input = &request.inputs[0];
                (input.shape.clone(), input.data.len())
            })
            .map_err(|error| error.message)
    };
    let one = |dtype, shape: &[i64], batches, bytes| read(vec![spec(dtype, shape)], batches, bytes);
    let fp32 = DataType::Fp32;
    assert_eq!(one(fp32, &[2], false, 8), Ok((vec![2], 8)));
    assert_eq!(one(fp32, &[-1, 2, -1], true, 24), Ok((vec![1, 2, 3], 24)));
    assert_eq!(one(fp32, &[-1], false, 0), Ok((vec![0], 0)));
    assert_eq!(one(DataType::Bytes, &[-1, 1], true, 3), Ok((vec![1, 1], 7)));
    let two = vec![spec(fp32, &[1]), spec(fp32, &[1])];
    for (found, part) in [
        (
            read(two, false, 8),
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' model configuration",
        ),
        (
            one(fp32, &[-1, -1], false, 8),
            "The shape of the raw input 'x' can not be deduced because there are more than one variable-sized dimension",
        ),
        (
            one(DataType::Bytes, &[2], false, 3),
            "must have input shape [1]",
        ),
        (one(fp32, &[2], false, 7), "Expected 8, got 7"),
        (one(fp32, &[0, -1], false, 7), "Expected 0, got 7"),
        (one(fp32, &[i64::MAX, i64::MAX, -1], false, 8), "tensor `x`"),
    ] {
        let message = found.expect_err(part);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn shared_memory_is_planned_read_and_said() {
    let json = r#"{"inputs":[
        {"name":"a","shape":[2],"datatype":"INT16","parameters":{"shared_memory_region":"r","shared_memory_byte_size":4,"shared_memory_offset":8}},
        {"name":"b","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}],
        "outputs":[{"name":"a","parameters":{"shared_memory_region":"o","shared_memory_byte_size":64,"binary_data":true}}]}"#;
    let mut header = parse_header(json.as_bytes()).expect("valid");
    let plan = header.shared_plan("m").expect("the size fits");
    assert_eq!((plan[0].offset, plan[0].bytes), (8, 4));
    header.set_shared(vec![Bytes::from_static(&[1, 2, 3, 4])]);
    let binary = vec![Bytes::from_static(&[9])];
    let (request, form) = header
        .into_request("m", None, binary, &BufferPool::default())
        .expect("valid");
    assert_eq!(&request.inputs[0].data[..], [1, 2, 3, 4]);
    assert_eq!(&request.inputs[1].data[..], [9]);
    let response = InferResponse {
        outputs: request.inputs,
        ..InferResponse::default()
    };
    let encoded = encode(&response, &form).expect("valid");
    assert_eq!(encoded.header_length, None);
    let answer: serde_json::Value = serde_json::from_slice(&encoded.json).expect("JSON");
    assert_eq!(
        answer["outputs"][0],
        serde_json::json!({"name": "a", "datatype": "INT16", "shape": [2]})
    );
    let wrong = json.replace("[2]", "[3]");
    let error = parse_header(wrong.as_bytes())
        .and_then(|header| header.shared_plan("m").map(|_| ()))
        .expect_err("the size does not fit");
    assert_eq!(
        error.message,
        "input byte size mismatch for input 'a' for model 'm'. Expected 6, got 4"
    );
}
