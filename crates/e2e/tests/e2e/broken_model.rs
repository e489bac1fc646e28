//! A model that cannot load leaves the others serving and says why.

use e2e::repository::Builtin;
use e2e::{Kapok, Repository, wait};
use serde_json::{Value, json};

use crate::doors::infer_body;

fn entry(index: &Value, name: &str) -> Value {
    let entries = index.as_array().expect("a list");
    let found = entries.iter().find(|entry| entry["name"] == name);
    found
        .cloned()
        .unwrap_or_else(|| panic!("no `{name}` in {index}"))
}

#[test]
fn the_good_model_serves_and_the_index_says_why_the_others_do_not() {
    let repository = Repository::new()
        .builtin("good", &Builtin::default())
        .file("not_onnx/1/model.onnx", b"this is not a model")
        .file("cut/1/model.onnx", [8, 7, 18])
        .file(
            "bad_config/config.pbtxt",
            "name: \"bad_config\"\nmax_batch_szie: 4\n",
        )
        .file("bad_config/1/model.onnx", b"")
        .file("bad_sidecar/kapok.toml", "engin = \"rten\"\n")
        .file("bad_sidecar/1/model.onnx", b"")
        .file("no_version/config.pbtxt", "backend: \"onnxruntime\"\n")
        .file("no_backend/config.pbtxt", "backend: \"teleport\"\n")
        .file("no_backend/1/.keep", "");
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .allow_log("not_onnx")
        .allow_log("cut")
        .allow_log("bad_config")
        .allow_log("bad_sidecar")
        .allow_log("no_version")
        .allow_log("no_backend")
        .when_live()
        .start();
    wait::until("`good` to be ready", || {
        let answer = kapok.http().get("/v2/models/good/ready");
        (answer.status == 200).then_some(())
    });
    let answer = kapok
        .http()
        .post("/v2/models/good/infer", infer_body(&[1], &json!([1])));
    assert_eq!(answer.status, 200, "{}", answer.text());

    let index = wait::until("every model to be judged", || {
        let index = kapok.http().post("/v2/repository/index", "").json();
        let judged = |entry: &Value| entry["state"] != "LOADING";
        index.as_array()?.iter().all(judged).then_some(index)
    });
    assert_eq!(entry(&index, "good")["state"], "READY");
    for (model, reason) in [
        ("not_onnx", "not an ONNX model"),
        ("cut", "not an ONNX model"),
        ("bad_config", "max_batch_szie"),
        ("bad_sidecar", "engin"),
        ("no_version", "version"),
        ("no_backend", "teleport"),
    ] {
        let entry = entry(&index, model);
        assert_eq!(entry["state"], "UNAVAILABLE", "{entry}");
        let said = entry["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{model}: `{reason}` in {said:?}");
        // Whoever asks learns nothing about the machine's folders.
        let folder = repository.path().display().to_string();
        assert!(!said.contains(&folder), "{model}: {said:?}");
        let answer = kapok.http().post(
            &format!("/v2/models/{model}/infer"),
            infer_body(&[1], &json!([1])),
        );
        assert!(
            [400, 503].contains(&answer.status),
            "{model}: {}",
            answer.text()
        );
        assert!(answer.text().contains(model), "{}", answer.text());
    }
    // Not every model that should be is loaded, and readiness does not pretend otherwise.
    assert_eq!(kapok.http().get("/health/live").status, 200);
    assert_ne!(kapok.http().get("/v2/models/cut/ready").status, 200);
    assert_ne!(kapok.http().get("/v2/health/ready").status, 200);
}
