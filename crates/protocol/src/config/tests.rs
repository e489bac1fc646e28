use super::*;
use crate::oip::proto::model_config::SchedulingChoice;
use crate::{DataType, TensorSpec};

mod corpus;
mod printed;
mod rules;

fn check_error(text: &str, expected: &str) {
    let found =
        parse("config.pbtxt", text).map_or_else(|error| error.to_string(), |_| String::new());
    assert_eq!(found, expected, "{text}");
}

fn config(text: &str) -> ModelConfig {
    parse("config.pbtxt", text).expect(text).config
}

#[test]
fn every_way_to_write_a_value_is_read() {
    let config = config(
        r#"# A comment
name: "m" 'x' "\x41\102\u00e9\n"   # neighbours are one text
max_batch_size: 0x10;
input [ { name: "a" data_type: TYPE_FP32 dims: [ -1, 010 ] }, < name: 'b', data_type: 9, dims: 1 dims: 2 > ]
input { name: "c" reshape: { shape: [] } optional: true }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 18446744073709551615 }
parameters { key: "k" value { string_value: "v" } }
parameters: [ { key: "l" value: { string_value: "w" } } ]
metric_tags { key: "team" value: "vision" }
model_metrics { metric_control { histogram_options { buckets: [ .5, 1e3, 2f, -inf ] } } }
"#,
    );
    assert_eq!(config.name, "mxAB\u{e9}\n");
    assert_eq!(config.max_batch_size, 16);
    let dims: Vec<_> = config
        .input
        .iter()
        .map(|input| input.dims.clone())
        .collect();
    assert_eq!(dims, [vec![-1, 8], vec![1, 2], vec![]]);
    assert_eq!(config.input[1].data_type, 9);
    assert_eq!(
        config.input[2].reshape,
        Some(crate::oip::proto::ModelTensorReshape::default())
    );
    let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice else {
        panic!("dynamic batching was set");
    };
    assert_eq!(batching.max_queue_delay_microseconds, u64::MAX);
    assert_eq!(config.parameters["l"].string_value, "w");
    assert_eq!(config.metric_tags["team"], "vision");
    let metrics = config.model_metrics.expect("set");
    let Some(crate::oip::proto::model_metrics::metric_control::MetricOptions::HistogramOptions(
        options,
    )) = &metrics.metric_control[0].metric_options
    else {
        panic!("histogram options were set");
    };
    assert_eq!(options.buckets, [0.5, 1000.0, 2.0, f64::NEG_INFINITY]);
}

const MISTAKES: &[(&str, &str)] = &[
    (
        "name: \"m\"\nmax_batchsize: 4",
        "config.pbtxt:2:1: unknown field `max_batchsize` in ModelConfig; did you mean `max_batch_size`?",
    ),
    (
        "input {\n  data_type: TYPE_FLOAT32\n}",
        "config.pbtxt:2:14: unknown value `TYPE_FLOAT32`; did you mean `TYPE_UINT32`?",
    ),
    (
        "input {\n  dims: [ 1, x ]\n}",
        "config.pbtxt:2:14: expected a whole number, found `x`",
    ),
    (
        "max_batch_size: 4\nmax_batch_size: 8",
        "config.pbtxt:2:1: `max_batch_size` is set twice",
    ),
    (
        "dynamic_batching { }\nsequence_batching { }",
        "config.pbtxt:2:1: `sequence_batching` and `dynamic_batching` exclude each other",
    ),
    (
        "max_batch_size: 2147483648",
        "config.pbtxt:1:17: 2147483648 is out of the range of this field",
    ),
    (
        "max_batch_size: 1.5",
        "config.pbtxt:1:17: `1.5` is not a whole number",
    ),
    (
        "max_batch_size 4",
        "config.pbtxt:1:16: expected `:` after `max_batch_size`, found `4`",
    ),
    (
        "name: m",
        "config.pbtxt:1:7: expected a text in quotes, found `m`",
    ),
    (
        "name: \"m",
        "config.pbtxt:1:7: this text has no closing \" on its line",
    ),
    (
        "name: \"\\q\"",
        "config.pbtxt:1:8: unknown escape in a text",
    ),
    (
        "name: \"\\xff\"",
        "config.pbtxt:1:7: this text is not UTF-8",
    ),
    (
        "input [ { name: \"a\" }",
        "config.pbtxt:1:22: expected `,` or `]`, found the end of the file",
    ),
    (
        "input { name: \"a\" ",
        "config.pbtxt:1:19: expected a field name or `}`, found the end of the file",
    ),
    (
        "input: \"a\"",
        "config.pbtxt:1:8: expected `{` of `input`, found a text",
    ),
    ("}", "config.pbtxt:1:1: expected a field name, found `}`"),
    (
        "response_cache { enable: yes }",
        "config.pbtxt:1:26: expected `true` or `false`, found `yes`",
    ),
    (
        "name: \"é\" é",
        "config.pbtxt:1:11: unexpected character `é`",
    ),
    (
        "parameters { key: 1 }",
        "config.pbtxt:1:19: expected a text in quotes, found `1`",
    ),
];

#[test]
fn a_mistake_is_named_with_its_place_and_the_nearest_known_word() {
    for (text, expected) in MISTAKES {
        check_error(text, expected);
    }
}

#[test]
fn a_problem_is_located_at_its_field_or_the_nearest_one_around_it() {
    let file = parse(
        "m/config.pbtxt",
        "name: \"m\"\ninput [\n  { name: \"a\"\n    dims: [ 1, 0 ] }\n]\nparameters { key: \"kapok.x\" value { string_value: \"1\" } }",
    )
    .expect("valid");
    for (field, place) in [
        ("name", "m/config.pbtxt:1:1"),
        ("input[0].dims[1]", "m/config.pbtxt:4:16"),
        ("input[0].data_type", "m/config.pbtxt:3:3"),
        ("input[1].dims", "m/config.pbtxt:2:1"),
        ("parameters[kapok.x].value", "m/config.pbtxt:6:29"),
        ("output[0]", "m/config.pbtxt"),
    ] {
        let located = file.locate(&Problem::new(field, "bad")).to_string();
        assert_eq!(located, format!("{place}: bad"), "{field}");
    }
}

#[test]
fn the_places_of_thousands_of_map_entries_are_kept() {
    let text: String = (0..20_000)
        .map(|key| format!("parameters {{ key: \"k{key}\" value {{ string_value: \"v\" }} }}\n"))
        .collect();
    let file = parse("config.pbtxt", &text).expect("valid");
    for (key, line) in [(0, 1), (1_234, 1_235), (19_999, 20_000)] {
        let field = format!("parameters[k{key}].value.string_value");
        let located = file.locate(&Problem::new(field, "bad"));
        assert_eq!(located.line, line);
        assert!(located.column > 20, "the value's own place");
    }
}

fn spec(name: &str, dtype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec::new(name, dtype, shape.to_vec())
}

fn completed(text: &str, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> ModelConfig {
    let mut config = config(text);
    normalize(&mut config, "m", Some(&holding("model.onnx"))).expect(text);
    complete(&mut config, inputs, outputs, DEFAULT_MAX_BATCH_SIZE).expect(text);
    config
}

/// A version's folder with one file in it.
fn holding(file: &str) -> Contents {
    Contents {
        files: [file.to_owned()].into(),
        ..Contents::default()
    }
}

#[test]
fn a_model_batches_only_when_every_first_dimension_is_free() {
    let free = spec("x", DataType::Fp32, &[-1, 3]);
    let fixed = spec("y", DataType::Fp32, &[1, 3]);
    let scalar = spec("z", DataType::Fp32, &[]);

    let batched = completed("", std::slice::from_ref(&free), std::slice::from_ref(&free));
    assert_eq!(batched.max_batch_size, 4);
    assert_eq!(batched.input[0].dims, [3]);
    assert_eq!(specs(&batched).0, std::slice::from_ref(&free));

    for other in [fixed, scalar] {
        let unbatched = completed(
            "",
            std::slice::from_ref(&free),
            std::slice::from_ref(&other),
        );
        assert_eq!(unbatched.max_batch_size, 0);
        assert_eq!(unbatched.input[0].dims, [-1, 3]);
        assert_eq!(unbatched.scheduling_choice, None);
        let mut refused = config("max_batch_size: 8");
        normalize(&mut refused, "m", Some(&holding("model.onnx"))).expect("an ONNX model");
        let problem = complete(
            &mut refused,
            std::slice::from_ref(&other),
            &[],
            DEFAULT_MAX_BATCH_SIZE,
        );
        assert_eq!(
            problem.map_err(|problem| problem.message),
            Err("autofill failed for model 'm': model does not support batching while non-zero max_batch_size is specified".to_owned())
        );
    }
}

#[test]
fn a_scalar_per_item_is_one_dimension_with_a_reshape() {
    let label = spec("label", DataType::Int64, &[-1]);
    let config = completed(
        "",
        std::slice::from_ref(&label),
        std::slice::from_ref(&label),
    );
    assert_eq!(specs(&config).1, [spec("label", DataType::Int64, &[-1, 1])]);
    assert_eq!(engine_specs(&config).1, [label]);
    assert_eq!(reshaped(&[7], &[], &[1]), Some(vec![7, 1]));
    assert_eq!(reshaped(&[7, 1], &[1], &[]), Some(vec![7]));
    assert_eq!(
        reshaped(&[2, 5, 6], &[-1, 6], &[2, 3, -1]),
        Some(vec![2, 2, 3, 5])
    );
    assert_eq!(reshaped(&[2, 5, 7], &[-1, 6], &[-1, 6]), None);
    assert_eq!(reshaped(&[], &[1], &[]), None);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn the_backend_follows_from_its_file_its_platform_or_the_models_name() {
    let invalid = "Invalid model name: Could not determine backend for model";
    for (name, text, file, expected) in [
        (
            "m",
            "",
            "model.onnx",
            "onnxruntime onnxruntime_onnx model.onnx",
        ),
        (
            "m-v1.5",
            "",
            "model.onnx",
            "onnxruntime onnxruntime_onnx model.onnx",
        ),
        (
            "x.onnx",
            "",
            "model.onnx",
            "onnxruntime onnxruntime_onnx model.onnx",
        ),
        (
            "echo.identity",
            "",
            "model.onnx",
            "onnxruntime onnxruntime_onnx model.onnx",
        ),
        ("m", "", "model.plan", "tensorrt tensorrt_plan model.plan"),
        (
            "m",
            "",
            "model.graphdef",
            "tensorflow tensorflow_graphdef model.graphdef",
        ),
        ("m", "", "model.xml", "openvino  model.xml"),
        ("m", "", "model.pt", "pytorch pytorch_libtorch model.pt"),
        ("m", "", "model.py", "python  model.py"),
        (
            "m",
            "platform: 'onnxruntime_onnx'",
            "",
            "onnxruntime onnxruntime_onnx model.onnx",
        ),
        (
            "m",
            "platform: 'tensorrt_plan'",
            "model.onnx",
            "tensorrt tensorrt_plan model.plan",
        ),
        (
            "m",
            "default_model_filename: 'model.onnx'",
            "",
            "onnxruntime onnxruntime_onnx model.onnx",
        ),
        (
            "m",
            "default_model_filename: 'other.onnx'",
            "other.onnx",
            "  other.onnx",
        ),
        (
            "m",
            "backend: 'pytorch' runtime: 'model.py'",
            "",
            "pytorch pytorch_libtorch ",
        ),
        ("echo.identity", "", "", "identity  model.identity"),
        ("a.b.c", "", "", "b.c  model.b.c"),
        ("echo.identity", "backend: 'a'", "", "a  "),
        ("m-v1.5", "", "", invalid),
        ("x.onnx", "", "", invalid),
        ("m", "", "", invalid),
    ] {
        let mut config = config(text);
        let contents = holding(file);
        let found = match normalize(&mut config, name, Some(&contents)) {
            Ok(()) => [
                &config.backend,
                &config.platform,
                &config.default_model_filename,
            ]
            .map(String::as_str)
            .join(" "),
            Err(problem) => problem.message,
        };
        assert!(found.starts_with(expected), "{name} {text} {file}: {found}");
    }
}

#[test]
fn what_the_file_says_is_kept() {
    let free = [spec("x", DataType::Fp32, &[-1, 3])];
    let config = completed(
        "max_batch_size: 1 default_model_filename: \"a.onnx\" instance_group { count: 3 } version_policy { all { } }",
        &free,
        &free,
    );
    assert_eq!(config.max_batch_size, 1);
    assert_eq!(config.default_model_filename, "a.onnx");
    assert_eq!(config.scheduling_choice, None);
    assert_eq!(config.instance_group[0].name, "m_0");
    assert_eq!(config.instance_group[0].count, 3);
    assert_eq!(instances_asked(&config), Some(3));
    assert_eq!(instances_asked(&ModelConfig::default()), None);
}

#[test]
fn json_has_the_wire_names_and_every_default() {
    let json: serde_json::Value = serde_json::from_str(&to_json(&completed(
        "version_policy { specific { versions: [9007199254740993] } } model_transaction_policy { }",
        &[spec("x", DataType::Bytes, &[-1, 3])],
        &[spec("y", DataType::Bf16, &[-1, -1])],
    )))
    .expect("JSON");
    assert_eq!(json["name"], "m");
    assert_eq!(json["backend"], "onnxruntime");
    assert_eq!(json["max_batch_size"], 4);
    assert_eq!(json["input"][0]["data_type"], "TYPE_STRING");
    assert_eq!(json["input"][0]["format"], "FORMAT_NONE");
    assert_eq!(json["input"][0]["optional"], false);
    assert_eq!(json["output"][0]["dims"], serde_json::json!([-1]));
    assert_eq!(
        json["version_policy"]["specific"]["versions"][0],
        9_007_199_254_740_993_i64
    );
    assert_eq!(
        json["dynamic_batching"]["preferred_batch_size"],
        serde_json::json!([4])
    );
    assert_eq!(json["model_transaction_policy"]["decoupled"], false);
    assert_eq!(json["instance_group"][0]["kind"], "KIND_CPU");
    assert_eq!(json["instance_group"][0]["count"], 2);
    assert_eq!(json["parameters"], serde_json::json!({}));
    assert_eq!(json["model_warmup"], serde_json::json!([]));
    assert!(
        json.get("ensemble_scheduling").is_none(),
        "only one schedule is set"
    );
    assert!(
        json.get("response_cache").is_none(),
        "an unset message is absent"
    );
}

#[test]
fn json_is_read_strictly_and_said_back() {
    let text = r#"{"name": "m", "max_batch_size": 4, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, "16"]}],
        "dynamicBatching": {"maxQueueDelayMicroseconds": "9007199254740993"}, "parameters": {"k": {"string_value": "v"}}}"#;
    let read = from_json(text).expect("valid").config;
    assert_eq!(read.input[0].dims, [-1, 16]);
    assert_eq!(from_json(&to_json(&read)).expect("valid").config, read);
    for (text, expected) in [
        ("", "config:1: EOF while parsing a value"),
        ("{} x", "config:1:4: trailing characters"),
        (
            "{\n \"max_batchsize\": 4}",
            "config:2:16: unrecognized field name 'max_batchsize'; did you mean `max_batch_size`?",
        ),
        (
            "{\"input\": [{\"data_type\": \"TYPE_FLOAT\"}]}",
            "config:1:37: unrecognized enum value 'TYPE_FLOAT'",
        ),
    ] {
        let error = from_json(text).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn a_configuration_is_printed_for_people() {
    let text = r#"name: "m \"x\""
max_batch_size: 8
input {
  name: "a"
  data_type: TYPE_FP32
  dims: [ -1, 16 ]
  reshape {
  }
}
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  priority_queue_policy {
    key: 1
    value {
      max_queue_size: 3
    }
  }
}
parameters {
  key: "b\t\001"
  value {
    string_value: "1"
  }
}
"#;
    assert_eq!(to_pbtxt(&config(text)), text);
}

#[test]
fn every_type_has_a_twin() {
    for dtype in DataType::ALL {
        assert_eq!(data_type(proto_data_type(dtype).into()), Some(dtype));
    }
    assert_eq!(data_type(0), None);
    assert_eq!(data_type(99), None);
}

#[test]
fn the_seeds_are_survived() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/pbtxt");
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let data = std::fs::read(entry.expect("a file").path()).expect("readable");
        for cut in (0..data.len().min(400)).chain([data.len()]) {
            fuzz_pbtxt(&data[..cut]);
        }
        seeds += 1;
    }
    assert!(seeds >= 20, "{seeds}");
}
