//! Requests that are wrong: the kind, the field, and the words.

use super::{read, tensor};
use crate::ApiError;
use crate::oip::rest::parse_header;
use base::ErrorKind;

fn check(found: Result<impl std::fmt::Debug, ApiError>, param: &str, message: &str) {
    let error = found.expect_err(message);
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert_eq!(error.param.as_deref(), Some(param), "{error}");
    assert!(
        error.message.contains(message),
        "{error}\nshould contain\n{message}"
    );
}

fn input(fields: &str) -> Result<crate::InferRequest, ApiError> {
    read(&format!(r#"{{"inputs":[{{{fields}}}]}}"#), &[]).map(|(request, _)| request)
}

const WRONG_DATA: &[(&str, &str, &str, &str)] = &[
    (
        "UINT8",
        "[2]",
        "[256,0]",
        "input `x`: element 0 of `data`: `256` does not fit UINT8",
    ),
    (
        "UINT8",
        "[2]",
        "[0,-1]",
        "element 1 of `data`: `-1` does not fit UINT8",
    ),
    ("INT8", "[1]", "[-129]", "`-129` does not fit INT8"),
    (
        "INT64",
        "[1]",
        "[9223372036854775808]",
        "does not fit INT64",
    ),
    (
        "UINT64",
        "[1]",
        "[99999999999999999999999]",
        "does not fit UINT64",
    ),
    (
        "INT32",
        "[1]",
        "[1.0]",
        "`1.0` is not an integer, and the datatype is INT32",
    ),
    ("INT32", "[1]", "[1e3]", "`1e3` is not an integer"),
    ("INT32", "[1]", "[true]", "`true` is not a number"),
    ("FP32", "[1]", "[\"1\"]", "`\"1\"` is not a number"),
    ("FP32", "[1]", "[null]", "`null` is not a number"),
    ("FP32", "[1]", "[1e39]", "`1e39` does not fit FP32"),
    ("FP64", "[1]", "[-1e999]", "`-1e999` does not fit FP64"),
    ("FP32", "[1]", "[{}]", "is not a number"),
    ("FP32", "[2]", "[{\"a\":[1,2]},1]", "is not a number"),
    ("BOOL", "[1]", "[2]", "`2` is not true or false"),
    ("BYTES", "[1]", "[7]", "expected a string, found a number"),
    ("BYTES", "[1]", "[\"\\ud800\"]", "a lone surrogate"),
    (
        "FP16",
        "[1]",
        "[1]",
        "receiving FP16 data via JSON is not supported. Please use the binary data format for input x",
    ),
    (
        "BF16",
        "[1]",
        "[1]",
        "receiving BF16 data via JSON is not supported",
    ),
    (
        "FP32",
        "[2,3]",
        "[1,2,3,4,5]",
        "Unable to parse 'data': Shape does not match true shape of 'data' field: shape [2, 3] needs 6 elements, the data has 5",
    ),
    (
        "FP32",
        "[2]",
        "[1,2,3]",
        "needs 2 elements, the data has more",
    ),
    ("FP32", "[2]", "[]", "the data has 0"),
    ("FP32", "[0]", "[1]", "needs 0 elements, the data has more"),
    (
        "FP32",
        "[2,3]",
        "[[1,2],[3,4,5,6]]",
        "has a nested list of 2 that ends before element 2",
    ),
    ("FP32", "[2,3]", "[[1,2],[3,4],[5,6]]", "a nested list of 2"),
    (
        "FP32",
        "[1]",
        "5",
        "Unable to parse 'data': expected an array",
    ),
    (
        "FP32",
        "[1]",
        "\"AAAA\"",
        "Unable to parse 'data': expected an array",
    ),
    ("FP32", "[]", "{}", "is not a number"),
    ("FP32", "[1]", "null", "expected an array"),
];

#[test]
fn data_that_is_not_the_tensor() {
    for (dtype, shape, data, message) in WRONG_DATA {
        check(tensor(dtype, shape, data), "inputs[0].data", message);
    }
}

#[test]
fn shapes_that_claim_too_much() {
    let count = "causes total element count to exceed maximum size of 9223372036854775807";
    let bytes = "byte size overflow for input 'x'";
    for (shape, message) in [
        // Triton's test_buffer_size_overflow.
        ("[16,1152921504606846978]", count),
        ("[4,1152921504606846978]", bytes),
        ("[9223372036854775808]", count),
        ("[99999999999999999999999999]", count),
        ("[9223372036854775807]", bytes),
        ("[4294967296,4294967296,4294967296]", count),
        (
            "1",
            "Unable to parse 'shape': expected an array, found a number",
        ),
        (
            "[1.5]",
            "attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        (
            "[\"1\"]",
            "attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        (
            &format!("[{}1]", "1,".repeat(64)),
            "a shape has at most 64 dimensions",
        ),
    ] {
        check(tensor("FP32", shape, "[1.0]"), "inputs[0].shape", message);
    }
    // A gigabyte with nothing behind it is refused before it is allocated.
    for shape in ["[268435456]", "[1073741824]", "[2305843009213693951]"] {
        check(
            tensor("FP32", shape, "[1.0]"),
            "inputs[0].data",
            "the data has fewer",
        );
        check(
            tensor("BYTES", shape, "[\"\"]"),
            "inputs[0].data",
            "the data has fewer",
        );
    }
    let error = tensor("FP32", "[2,-5]", "[1.0]").expect_err("negative");
    // Triton's test_negative_dimensions wants 500.
    assert_eq!((error.kind, error.http), (ErrorKind::Invalid, Some(500)));
    assert_eq!(
        error.message,
        "input `x`: Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer"
    );
}

#[test]
fn inputs_without_what_they_need() {
    let rest = r#""shape":[1],"datatype":"UINT8","data":[1]"#;
    check(
        input(rest),
        "inputs[0].name",
        "input 0: Unable to parse 'name': attempt to access non-existing object member 'name'",
    );
    check(
        input(&format!(r#""name":7,{rest}"#)),
        "inputs[0].name",
        "expected a string, found a number",
    );
    check(
        input(&format!(r#""name":"",{rest}"#)),
        "inputs[0].name",
        "must not be empty",
    );
    check(
        input(r#""name":"x","datatype":"UINT8","data":[1]"#),
        "inputs[0].shape",
        "non-existing object member 'shape'",
    );
    check(
        input(r#""name":"x","shape":[1],"data":[1]"#),
        "inputs[0].datatype",
        "non-existing object member 'datatype'",
    );
    check(
        input(r#""name":"x","shape":[1],"datatype":"FP23","data":[1]"#),
        "inputs[0].datatype",
        "input `x`: unknown datatype `FP23`; did you mean `FP32`?",
    );
    check(
        input(r#""name":"x","shape":[1],"datatype":"UINT8""#),
        "inputs[0].data",
        "But no field is set",
    );
    check(
        input(
            r#""name":"x","shape":[1],"datatype":"UINT8","data":[1],"parameters":{"binary_data_size":1}"#,
        ),
        "inputs[0].data",
        "But set 'data' 'binary_data_size'",
    );
    let twice = format!(r#"{{"inputs":[{{"name":"x",{rest}}},{{"name":"x",{rest}}}]}}"#);
    check(
        read(&twice, &[]),
        "inputs[1].name",
        "input `x`: the name is given to an earlier input already",
    );
    check(
        parse_header(b"{\"inputs\":[7]}"),
        "inputs[0]",
        "input 0: expected an object, found a number",
    );
}

#[test]
fn binary_that_is_not_what_was_promised() {
    let header = |dtype: &str, size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"{dtype}","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let param = "inputs[0].parameters.binary_data_size";
    check(
        read(&header("FP32", "7"), &[&[0; 7]]),
        param,
        "`binary_data_size` is 7, type and shape need 8 bytes",
    );
    for size in ["-1", "1.5", "\"8\"", "true", "18446744073709551616"] {
        check(
            read(&header("FP32", size), &[&[0; 8]]),
            param,
            "binary_data_size",
        );
    }
    check(
        read(&header("FP32", "8"), &[&[0; 5]]),
        param,
        "promises 8 bytes, 5 are there",
    );
    check(
        read(&header("FP32", "8"), &[]),
        param,
        "promises 8 bytes, 0 are there",
    );
    let error = read(&header("FP32", "8"), &[&[0; 8], &[1]]).expect_err("too much");
    assert_eq!(
        error.message,
        "unexpected additional input data for model 'm'"
    );
    check(
        read(&header("BYTES", "3"), &[&[0; 3]]),
        "inputs[0]",
        "incomplete string length indicator for inference input",
    );
    check(
        read(&header("BYTES", "4"), &[&[0; 4]]),
        "inputs[0]",
        "expected 2 string elements for inference input",
    );
    // Two promises whose sum cannot be addressed.
    let huge = r#"{"name":"NAME","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":9223372036854775807}}"#;
    let three = ["a", "b", "c"]
        .map(|name| huge.replace("NAME", name))
        .join(",");
    check(
        parse_header(format!("{{\"inputs\":[{three}]}}").as_bytes()),
        "inputs[2].shape",
        "byte size overflow",
    );
}

const WRONG_DOCUMENTS: &[(&str, &str)] = &[
    (
        "",
        "failed to parse the request JSON: not valid JSON at byte 0: the text ends where a value should be",
    ),
    (
        "[]",
        "failed to parse the request JSON: expected an object, found an array",
    ),
    (
        "{\"inputs\":[",
        "failed to parse the request JSON: not valid JSON at byte 11",
    ),
    ("{\"inputs\":[]} {}", "there is more after the end"),
    (
        "{\"inputs\":[{\"data\":[NaN]}]}",
        "NaN and Infinity are not JSON",
    ),
    ("{\"inputs\":[{\"data\":[-Infinity]}]}", "expected a digit"),
    ("\u{feff}{}", "a byte order mark is not JSON"),
    (
        "{}",
        "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'",
    ),
    (
        "{\"inputs\":{}}",
        "Unable to parse 'inputs': expected an array, found an object",
    ),
    (
        "{\"inputs\":[],\"outputs\":null}",
        "Unable to parse 'outputs': expected an array, found null",
    ),
    (
        "{\"inputs\":[],\"id\":7}",
        "Unable to parse 'id': expected a string, found a number",
    ),
    (
        "{\"inputs\":[],\"parameters\":{\"a\":{}}}",
        "parameter `a`: has invalid type, an object",
    ),
    (
        "{\"inputs\":[],\"parameters\":{\"a\":1e999}}",
        "parameter `a`: the number is too large",
    ),
    (
        "{\"inputs\":[],\"parameters\":{\"triton_x\":1}}",
        "reserved for Triton usage",
    ),
    (
        "{\"inputs\":[],\"parameters\":{\"binary_data_output\":1}}",
        "Unable to parse 'binary_data_output'",
    ),
    (
        "{\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":1}}]}",
        "output `y`: Unable to parse 'binary_data'",
    ),
];

#[test]
fn documents_that_are_not_requests() {
    for (json, message) in WRONG_DOCUMENTS {
        let error = parse_header(json.as_bytes()).expect_err(json);
        assert_eq!(error.kind, ErrorKind::Invalid, "{json}");
        assert!(error.message.contains(message), "{json}: {error}");
    }
    assert!(parse_header(b"{\"id\":\"\xff\"}").is_err());
    let deep = "[".repeat(1_000_000);
    let error = parse_header(deep.as_bytes()).expect_err("deep");
    assert!(error.message.contains("expected an object"));
    let error = parse_header(format!("{{\"x\":{deep}").as_bytes()).expect_err("deep");
    assert!(
        error
            .message
            .contains("JSON nesting depth exceeds maximum allowed limit (100)")
    );
}

#[test]
fn a_flood_of_tensors_is_refused() {
    let flood = vec!["{}"; 16_385].join(",");
    for list in ["inputs", "outputs"] {
        let json = format!("{{\"inputs\":[],\"{list}\":[{flood}]}}");
        check(
            parse_header(json.as_bytes()),
            list,
            "more than 16384 elements",
        );
    }
}

#[test]
fn what_a_client_sent_is_not_sent_back_whole() {
    let long = "x".repeat(20_000);
    for input in [
        format!(r#""name":"{long}","shape":[1],"datatype":"FP32""#),
        format!(r#""name":"x","shape":[1],"datatype":"{long}""#),
        format!(r#""name":"x","shape":[1],"datatype":"INT8","parameters":{{"{long}":[]}}"#),
    ] {
        let error = parse_header(format!(r#"{{"inputs":[{{{input}}}]}}"#).as_bytes())
            .expect_err("is wrong");
        let param = error.param.as_deref().unwrap_or_default();
        assert!(
            error.message.contains('…') && error.message.len() < 500 && param.len() < 500,
            "{error} {param}"
        );
    }
}

#[test]
fn what_is_said_of_shared_memory_must_be_whole() {
    for (json, param) in [
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":"all"}}]}"#,
            "outputs[0].parameters.classification",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","parameters":{"shared_memory_byte_size":1}}]}"#,
            "inputs[0].parameters.shared_memory_byte_size",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[1],"parameters":{"shared_memory_region":"r","shared_memory_byte_size":1}}]}"#,
            "inputs[0].data",
        ),
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]}"#,
            "outputs[0].parameters.shared_memory_byte_size",
        ),
    ] {
        let error = parse_header(json.as_bytes()).expect_err(json);
        assert_eq!(
            (error.kind, error.param.as_deref()),
            (ErrorKind::Invalid, Some(param)),
            "{error}"
        );
    }
}
