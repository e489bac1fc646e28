use serde_json::{Value, json};

use super::*;
use crate::{DataType, Parameter};

fn model() -> ModelMetadata {
    let spec = |name: &str, dtype, shape: &[i64]| TensorSpec::new(name, dtype, shape.to_vec());
    ModelMetadata {
        name: "m".into(),
        versions: Vec::new(),
        platform: String::new(),
        inputs: vec![
            spec("text_input", DataType::Bytes, &[-1, 1]),
            spec("numbers", DataType::Fp32, &[-1, -1]),
            spec("square", DataType::Int32, &[-1, 2, 2]),
            spec("stream", DataType::Bool, &[-1, 1]),
        ],
        outputs: Vec::new(),
    }
}

fn read(body: &Value) -> Result<InferRequest, ApiError> {
    read_generate(
        body.to_string().as_bytes(),
        &model(),
        true,
        &BufferPool::default(),
    )
}

#[test]
fn members_become_tensors_by_name_and_parameters_otherwise() {
    let request = read(&json!({
        "id": "7", "text_input": "h\u{e9}", "stream": true, "max_tokens": 9, "numbers": [1, 2.5, 3],
        "square": [[1, 2], [3, 4]], "parameters": {"temperature": 0.5},
    }))
    .expect("valid");
    assert_eq!(request.id.as_deref(), Some("7"));
    assert_eq!(request.parameters["max_tokens"], Parameter::Int(9));
    assert_eq!(request.parameters["temperature"], Parameter::Double(0.5));
    let shape = |name: &str| {
        let mut inputs = request.inputs.iter();
        let input = inputs.find(|input| input.name == name).expect(name);
        (input.shape.clone(), input.data.to_vec())
    };
    assert_eq!(
        shape("text_input"),
        (vec![1, 1], b"\x03\0\0\0h\xc3\xa9".to_vec())
    );
    assert_eq!(shape("stream"), (vec![1, 1], vec![1]));
    assert_eq!(shape("numbers").0, [1, 3]);
    assert_eq!(shape("square").0, [1, 2, 2]);
    assert_eq!(request.inputs.len(), 4);
}

#[test]
fn what_is_no_input_and_no_parameter_is_refused_by_name() {
    for (body, part) in [
        (json!([]), "failed to parse the request JSON"),
        (
            json!({"other": [1]}),
            "parameter 'other' has invalid type: it is no input of model 'm'",
        ),
        (
            json!({"other": null}),
            "parameter 'other' has invalid type: it is no input of model 'm'",
        ),
        (
            json!({"parameters": {"deep": {}}}),
            "parameter 'deep' has invalid type",
        ),
        (json!({"square": [1, 2, 3]}), "Shape does not match"),
        (json!({"square": "x"}), "input `square`"),
        (
            json!({"text_input": 1}),
            "attempt to access JSON non-string as string",
        ),
        (
            json!({"stream": "true"}),
            "attempt to access JSON non-boolean as boolean",
        ),
        (json!({"triton_x": 1}), "reserved for Triton usage"),
    ] {
        let error = read(&body).expect_err(part);
        assert!(error.message.contains(part), "{error}");
    }
}

#[test]
fn an_input_given_twice_is_refused() {
    for body in [
        r#"{"text_input": "a", "stream": true, "text_input": "b"}"#,
        r#"{"text_input": "a", "parameters": {"text_input": "b"}}"#,
    ] {
        let error = read_generate(body.as_bytes(), &model(), true, &BufferPool::default());
        let error = error.expect_err("twice");
        assert_eq!(
            error.message,
            "input 'text_input' already exists in request"
        );
    }
}

#[test]
fn an_answer_is_flat() {
    let tensor = |name: &str, dtype, shape: &[usize], data: &[u8]| {
        let data = bytes::Bytes::copy_from_slice(data);
        Tensor::new(name, dtype, shape.to_vec(), data).expect("valid")
    };
    let response = InferResponse {
        model: "m".into(),
        version: "1".into(),
        id: Some("7".into()),
        parameters: [("tokens".to_owned(), Parameter::Int(2))].into(),
        outputs: vec![
            tensor("text_output", DataType::Bytes, &[1, 1], b"\x02\0\0\0hi"),
            tensor("list", DataType::Uint8, &[2], &[1, 2]),
            tensor("none", DataType::Uint8, &[0], &[]),
        ],
    };
    let json: Value =
        serde_json::from_slice(&encode_generate(&response).expect("valid")).expect("JSON");
    assert_eq!(
        json,
        json!({"model_name": "m", "model_version": "1", "id": "7", "tokens": 2,
               "text_output": "hi", "list": [1, 2], "none": []})
    );
}
