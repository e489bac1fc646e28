//! Triton's command line: the flags that KServe's runtime and Triton's own scripts use.

use e2e::repository::Builtin;
use e2e::{Client, Kapok, Repository, Running};
use serde_json::{Value, json};

use crate::doors::infer_body;

/// On free ports of the loopback.
fn tritonserver(repository: &Repository) -> Kapok {
    let store = format!("--model-store={}", repository.path().display());
    [
        store.as_str(),
        "--grpc-port=0",
        "--http-port=0",
        "--metrics-port=0",
        "--allow-grpc=true",
        "--allow-http=true",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
    ]
    .into_iter()
    .fold(Kapok::new(), |kapok, flag| kapok.arg(flag))
}

fn ask(kapok: &Running, model: &str) -> e2e::Response {
    let body = infer_body(&[2], &json!([1, 2]));
    kapok
        .http()
        .post(&format!("/v2/models/{model}/infer"), body)
}

fn two_models() -> Repository {
    Repository::new()
        .builtin("identity", &Builtin::default())
        .builtin("other", &Builtin::default())
}

#[test]
fn kserves_runtime_gets_what_triton_gives() {
    let repository = two_models();
    let traces = tempfile::tempdir().expect("a temporary folder");
    let file = traces.path().join("trace.json");
    let mut kapok = tritonserver(&repository)
        .arg("--trace-config=level=TIMESTAMPS")
        .arg("--trace-config=rate=1")
        .arg(format!("--trace-config=triton,file={}", file.display()))
        .arg("--log-verbose=1")
        .arg("--backend-config=onnxruntime,default-max-batch-size=4")
        .arg("--backend-config=onnxruntime,x=y")
        .start_as_tritonserver();
    for model in ["identity", "other"] {
        let answer = ask(&kapok, model);
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
    }
    // Triton's default is that nobody loads anything.
    let refused = kapok.http().post("/v2/repository/models/other/load", "");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("load / unload is not allowed"));
    let metrics = Client::to(kapok.started("Metrics Service")).get("/metrics");
    assert!(metrics.text().contains("nv_inference_request_success"));
    let grpc = kapok.started("GRPCInferenceService");
    assert_eq!(Client::to(grpc).get("/v2").status, 404);
    assert!(kapok.log().contains("--backend-config is accepted"));
    assert_eq!(kapok.stop(), 0);
    let traces = std::fs::read_to_string(file).expect("a trace file");
    let traces: Value = serde_json::from_str(&traces).expect("one JSON document");
    let models: Vec<_> = traces
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["model_name"].as_str())
        .collect();
    assert_eq!(models, ["identity", "other"], "{traces}");
}

#[test]
fn explicit_control_loads_what_was_named() {
    let repository = two_models();
    let kapok = tritonserver(&repository)
        .arg("--model-control-mode=explicit")
        .arg("--load-model=identity")
        .start_as_tritonserver();
    assert_eq!(ask(&kapok, "identity").status, 200);
    assert_ne!(ask(&kapok, "other").status, 200);
    let loaded = kapok.http().post("/v2/repository/models/other/load", "");
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    assert_eq!(ask(&kapok, "other").status, 200);
}

#[test]
fn a_model_that_does_not_load_ends_the_start_unless_told_otherwise() {
    let repository = two_models().file("broken/config.pbtxt", "backend: \"nope\"\n");
    let repository = repository.file("broken/1/.keep", "");
    let ended = tritonserver(&repository).run_as_tritonserver();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("failed to load all models"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("broken"), "{ended:?}");
    let kapok = tritonserver(&repository)
        .arg("--exit-on-error=false")
        .arg("--strict-readiness=false")
        .allow_log("broken")
        .start_as_tritonserver();
    assert_eq!(ask(&kapok, "identity").status, 200);
    let ready = kapok.http().get("/v2/health/ready");
    assert_eq!(ready.status, 200, "{}", ready.text());
}

#[test]
fn a_flag_that_triton_does_not_know_is_an_error() {
    let repository = two_models();
    let ended = tritonserver(&repository)
        .arg("--model-repositry=/x")
        .run_as_tritonserver();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("did you mean"), "{ended:?}");
}
