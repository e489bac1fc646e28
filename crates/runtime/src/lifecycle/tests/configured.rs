//! What configurations say of metrics, and what a node says of configurations.

use super::*;

#[tokio::test]
async fn a_models_tags_are_labels_of_its_series_while_it_serves() {
    let tags = r#"metric_tags { key: "team" value: "vision" }"#;
    let root = repository(&[("m/config.pbtxt", &builtin("identity", tags))]);
    let (runtime, registry) = start(explicit(root.path()), []).await;
    let tagged = || {
        registry
            .encode()
            .lines()
            .filter(|line| line.contains("_team=\"vision\""))
            .count()
    };
    runtime
        .infer(ints("m", &[1]), far())
        .await
        .expect("answers");
    let said = "nv_inference_request_success{model=\"m\",version=\"1\",_team=\"vision\"} 1";
    assert!(
        registry.encode().contains(said) && tagged() > 10,
        "{}",
        registry.encode()
    );
    runtime.unload("m", false).await.expect("unloads");
    until("the model is free", || state(&runtime, "1").1 == "unloaded").await;
    assert_eq!(tagged(), 0);
    write(
        root.path(),
        "m/config.pbtxt",
        &builtin("identity", r#"metric_tags { key: "a b" value: "1" }"#),
    );
    let error = runtime.load(load("m")).await.expect_err("no label");
    assert!(
        error.message.contains("cannot be a label"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_model_sets_the_buckets_of_its_own_histograms() {
    let buckets = |family: &str, buckets: &str| {
        format!(
            "model_metrics {{ metric_control [ {{ metric_identifier {{ family: \"{family}\" }} \
             histogram_options {{ buckets: [ {buckets} ] }} }} ] }}"
        )
    };
    let rows = buckets("kapok_runtime_batch_rows", "-1, 0.5, 3");
    let root = repository(&[
        ("m/config.pbtxt", &builtin("identity", &rows)),
        ("usual/config.pbtxt", &builtin("identity", "")),
    ]);
    let (runtime, registry) = start(explicit(root.path()), []).await;
    let bounds = |model: &str| -> Vec<String> {
        let text = registry.encode();
        let lines = text.lines().filter(|line| {
            line.starts_with("kapok_runtime_batch_rows_bucket")
                && line.contains(&format!("model=\"{model}\""))
        });
        let bound = |line: &str| {
            line.split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .map(str::to_owned)
        };
        lines.filter_map(bound).collect()
    };
    assert_eq!(bounds("m"), ["-1.0", "0.5", "3.0", "+Inf"]);
    assert_eq!(bounds("usual").len(), 10);
    write(
        root.path(),
        "m/config.pbtxt",
        &builtin("identity", &buckets("kapok_runtime_batch_rows", "7")),
    );
    runtime.load(load("m")).await.expect("loads");
    assert_eq!(bounds("m"), ["7.0", "+Inf"], "no series is there twice");
}

#[tokio::test]
async fn a_node_may_ask_for_whole_configurations_and_other_batches() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let settings = |complete_configs, default_max_batch_size| Config {
        complete_configs,
        default_max_batch_size,
        ..explicit(root.path())
    };
    for (asked, completed) in [(7, 7), (1, 1), (0, 1)] {
        let (runtime, _) = start(settings(true, asked), [fake.engine()]).await;
        let config = runtime.config("m", None).expect("ready");
        assert_eq!(config.max_batch_size, completed);
        let batches = config.scheduling_choice.is_some();
        assert_eq!(batches, completed > 1, "one at a time is no batch");
    }
    let io = r#"input [{ name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }]"#;
    let whole = r#"output [{ name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] }]"#;
    for (file, said) in [
        (None, "model configuration is not provided for model 'm'"),
        (Some("backend: \"onnxruntime\"".to_owned()), "expects 0"),
        (
            Some(format!("backend: \"onnxruntime\" {io}")),
            "no output is configured",
        ),
        (Some(format!("backend: \"onnxruntime\" {io} {whole}")), ""),
    ] {
        if let Some(file) = &file {
            write(root.path(), "m/config.pbtxt", file);
        }
        let (runtime, _) = start(settings(false, 4), [fake.engine()]).await;
        let (state, reason) = state(&runtime, "1");
        assert!(reason.contains(said), "{file:?}: {reason}");
        assert_eq!(state == ModelState::Ready, said.is_empty(), "{reason}");
    }
}
