use super::*;
use crate::Builtin;
use crate::testing::{Fake, builtin, repository};

fn describe(_source: &Source) -> Described {
    let x = TensorSpec::new("x", protocol::DataType::Fp32, vec![1, 3]);
    Ok((vec![x.clone()], vec![x]))
}

fn checked(files: &[(&str, &str)]) -> Vec<String> {
    checked_with(files, &[], true)
}

fn checked_with(files: &[(&str, &str)], gpus: &[i32], completes: bool) -> Vec<String> {
    let root = repository(files);
    let engines = [
        Arc::new(Builtin) as Arc<dyn Engine>,
        Fake::new("onnxruntime").engine(),
    ];
    let readers = Readers {
        engines: &engines,
        describe: &describe,
        gpus,
        completes,
    };
    let checked = check(&[root.path().to_owned()], readers).expect("readable");
    let shown = |finding: &Finding| {
        let file = finding
            .file
            .strip_prefix(root.path())
            .expect("inside")
            .display();
        let fix = finding.fix.as_deref().unwrap_or("-");
        format!(
            "{file}:{}:{}: {} | {fix}",
            finding.line, finding.column, finding.message
        )
    };
    checked.findings.iter().map(shown).collect()
}

#[test]
fn every_mistake_of_every_model_is_named_with_its_place_and_its_fix() {
    let ensemble = "platform: \"ensemble\"\ninput { name: \"INPUT0\" data_type: TYPE_FP32 dims: 1 }\noutput { name: \"OUTPUT0\" data_type: TYPE_FP32 dims: 1 }\nensemble_scheduling { step {\n model_name: \"gone\"\n model_version: -1 input_map { key: \"INPUT0\" value: \"INPUT0\" } output_map { key: \"OUTPUT0\" value: \"OUTPUT0\" } } }";
    let found = checked(&[
        ("fixed/1/model.onnx", "ok"),
        (
            "fixed/config.pbtxt",
            "max_batch_size: 4\ninput { name: \"x\" data_type: TYPE_FP32 dims: 3 }\noutput { name: \"x\" data_type: TYPE_FP32 dims: 3 }",
        ),
        ("good/config.pbtxt", &builtin("identity", "")),
        (
            "line/config.pbtxt",
            "backend: \"identity\"\nmax_batch_size: -1\ninstance_group { kind: KIND_GPU }",
        ),
        ("pipe/config.pbtxt", ensemble),
        ("shapes/1/model.onnx", "ok"),
        ("shapes/kapok.toml", "[warmup.shapes]\ny = [1]"),
        ("toml/1/model.onnx", "ok"),
        ("toml/kapok.toml", "lanes = 0\n"),
        ("unknown/config.pbtxt", "backend: \"teleport\""),
        ("void/1/notes.txt", ""),
    ]);
    let batch = "for the model to support batching the shape should have at least 1 dimension and the first dimension must be -1; but shape expected by the model is [1,3]";
    let fixed = "has its first dimension fixed at 1: set max_batch_size: 0 and dims: [1,3], or re-export with a dynamic first axis";
    assert_eq!(
        found,
        [
            format!("fixed/config.pbtxt:2:40: model 'fixed', tensor 'x': {batch} | input 'x' {fixed}"),
            format!("fixed/config.pbtxt:3:41: model 'fixed', tensor 'x': {batch} | output 'x' {fixed}"),
            "line/config.pbtxt:2:1: 'max_batch_size' must be non-negative value for line | set 0 for a model without a batch dimension, or the largest batch".to_owned(),
            "line/config.pbtxt:3:18: instance group line_0 of model line has kind KIND_GPU but no GPUs are available | set kind: KIND_CPU and no `gpus`, or kind: KIND_AUTO".to_owned(),
            "shapes/kapok.toml:0:0: [warmup] shapes: the model has no input `y`, its inputs are `x` | -".to_owned(),
            "toml/kapok.toml:1:9: `lanes`: at least 1 lane | -".to_owned(),
            "unknown:0:0: Invalid argument: unable to find backend library for backend 'teleport', try specifying runtime on the model configuration. | -".to_owned(),
            "void:0:0: Invalid model name: Could not determine backend for model 'void' with no backend in model configuration. Expected model name of the form 'model.<backend_name>'. | put the model at `1/model.onnx` in its folder, or name its engine in `backend`".to_owned(),
            "pipe/config.pbtxt:5:2: ensemble pipe contains models that are not available or ambiguous: gone | add the model's folder, correct its name, or repair it".to_owned(),
        ]
    );
}

#[test]
fn files_that_are_named_are_looked_for() {
    let found = checked(&[(
        "m/config.pbtxt",
        &format!(
            "{} model_operations {{ op_library_filename: \"ops.so\" }}",
            builtin("identity", "")
        ),
    )]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains(
            "there is no `ops.so`, which `model_operations.op_library_filename[0]` names"
        ),
        "{found:?}"
    );
}

#[test]
fn a_model_may_ask_for_the_gpus_that_are_there() {
    let on = |gpu: i32| {
        format!("backend: \"onnxruntime\"\ninstance_group {{ kind: KIND_GPU gpus: [ {gpu} ] }}")
    };
    let check = |gpu, part: Option<&str>| {
        let files = [("m/1/model.onnx", "ok"), ("m/config.pbtxt", &*on(gpu))];
        let found = checked_with(&files, &[0, 2], true);
        match part {
            None => assert_eq!(found, Vec::<String>::new()),
            Some(part) => assert!(found.len() == 1 && found[0].contains(part), "{found:?}"),
        }
    };
    check(2, None);
    check(1, Some("gpu id 1"));
}

#[test]
fn what_a_node_that_completes_nothing_refuses_is_named() {
    let tensor =
        |side: &str| format!("{side} {{ name: \"x\" data_type: TYPE_FP32 dims: [ 1, 3 ] }}\n");
    let (input, whole) = (tensor("input"), tensor("input") + &tensor("output"));
    let of_onnx = |text: &str| format!("backend: \"onnxruntime\"\n{text}");
    let (open, half, whole) = (of_onnx(""), of_onnx(&input), of_onnx(&whole));
    let files = [
        ("bare/1/model.onnx", "ok"),
        ("half/1/model.onnx", "ok"),
        ("half/config.pbtxt", &half),
        ("open/1/model.onnx", "ok"),
        ("open/config.pbtxt", &open),
        ("whole/1/model.onnx", "ok"),
        ("whole/config.pbtxt", &whole),
    ];
    assert_eq!(checked(&files), [""; 0]);
    let found = checked_with(&files, &[], false);
    let of = |model: &str| found.iter().filter(|line| line.starts_with(model)).count();
    assert_eq!(
        ["bare", "half", "open", "whole"].map(of),
        [1, 1, 2, 0],
        "{found:?}"
    );
    assert!(
        found[0].starts_with(
            "bare/config.pbtxt:0:0: model configuration is not provided for model 'bare'"
        ),
        "{found:?}"
    );
    assert!(found[1].contains("no output is configured"), "{found:?}");
    assert!(
        found[2].contains("configuration expects 0 inputs, model provides 1"),
        "{found:?}"
    );
}
