//! The binary as a client of itself, in `--output json`.

use e2e::repository::{self, Builtin};
use e2e::{Answer, FakeUpstream, Finished, Kapok, Repository};
use serde_json::json;

#[test]
fn models_come_go_and_come_back() {
    let repository = Repository::new().builtin("identity", &Builtin::default());
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .arg("--set")
        .arg("node.modelControl=explicit")
        .arg("--set")
        .arg("node.loadModels=[\"identity\"]")
        .allow_log("rolled back to the previous version")
        .start();
    let order = |args: &[&str], done: &str| {
        let ordered = kapok.cli(&[&["models"], args].concat());
        assert_eq!(ordered.code, 0, "{ordered:?}");
        let expected = json!({"model": "identity", "done": done});
        assert_eq!(ordered.json(), expected, "{ordered:?}");
    };
    let served = || {
        let asked = kapok.cli(&["infer", "identity", "--input", "INPUT0=[1]"]);
        (asked.code == 0).then(|| asked.json()["model_version"].clone())
    };
    let nothing = kapok.cli(&["models", "rollback", "identity"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    assert!(
        nothing.stderr.contains("no previous version"),
        "{nothing:?}"
    );
    let repository = repository.file("identity/2/.keep", "");
    assert_eq!(served(), Some(json!("1")));
    order(&["load", "identity"], "loaded");
    assert_eq!(served(), Some(json!("2")));
    order(&["rollback", "identity"], "rolled back");
    assert_eq!(served(), Some(json!("1")));
    order(&["unload", "identity"], "unloaded");
    assert_eq!(served(), None);
    order(&["load", "identity"], "loaded");
    assert_eq!(served(), Some(json!("2")));
    let config = repository.path().join("override.json");
    let document = json!({
        "backend": "identity",
        "max_batch_size": 8,
        "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
    });
    std::fs::write(&config, document.to_string()).expect("the folder is ours");
    let config = config.to_str().expect("UTF-8");
    order(&["load", "identity", "--config", config], "loaded");
    let config = kapok.http().get("/v2/models/identity/config").json();
    assert_eq!(config["max_batch_size"], 8, "{config}");
    let unknown = kapok.cli(&["models", "unload", "nobody"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
}

#[test]
fn infer_asks_a_model() {
    let repository = Repository::new().builtin("identity", &Builtin::default());
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let asked = kapok.cli(&["infer", "identity", "--input", "INPUT0=[1, 2, 3]"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    let output = &asked.json()["outputs"][0];
    assert_eq!(output["name"], "OUTPUT0", "{asked:?}");
    assert_eq!(output["data"], json!([1.0, 2.0, 3.0]), "{asked:?}");
    let binary = kapok.cli(&[
        "infer",
        "identity",
        "--input",
        "INPUT0=[1, 2, 3]",
        "--binary",
    ]);
    assert_eq!(
        binary.json()["outputs"][0]["data"],
        json!([1.0, 2.0, 3.0]),
        "{binary:?}"
    );
    let wrong = kapok.cli(&["infer", "identity", "--input", "NOPE=[1]"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.stderr.contains("NOPE"), "{wrong:?}");
}

#[test]
fn embed_compares_texts() {
    let model = repository::fetched("all-minilm-l6-v2");
    let repository = Repository::new().link("all-minilm-l6-v2", &model);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let texts = ["a cat", "a kitten", "an income tax form"];
    let asked = kapok.cli(&[&["embed", "all-minilm-l6-v2"], texts.as_slice()].concat());
    assert_eq!(asked.code, 0, "{asked:?}");
    let document = asked.json();
    let vectors: Vec<Vec<f64>> = (0..3)
        .map(|n| serde_json::from_value(document["data"][n]["embedding"].clone()).expect("numbers"))
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    assert_eq!(vectors[0].len(), 384);
    assert!((dot(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-4);
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]) + 0.2);
}

#[test]
fn chat_streams_an_answer() {
    let delta =
        |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string();
    let fake = FakeUpstream::start(
        Answer::events()
            .event(&delta("Par"))
            .event(&delta("is"))
            .done(),
    );
    let kapok = Kapok::new().upstream("llm", &fake.url()).start();
    let asked = kapok.cli(&["chat", "--model", "m", "What is the capital of France?"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.stdout.contains("Paris"), "{asked:?}");
    asked.json();
    let sent: serde_json::Value =
        serde_json::from_slice(&fake.wait_for_requests(1)[0].body).expect("JSON");
    assert_eq!(sent["model"], "m");
    assert_eq!(
        sent["messages"][0]["content"],
        "What is the capital of France?"
    );
}

#[test]
fn models_list_shows_engines_and_figures() {
    let magika = repository::fetched("magika");
    let repository = Repository::new()
        .builtin("identity", &Builtin::default())
        .link("magika", &magika);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let short = kapok.cli(&["models", "list"]);
    assert_eq!(short.code, 0, "{short:?}");
    assert!(
        short.stdout.contains("magika") && short.stdout.contains("identity"),
        "{short:?}"
    );
    let long = kapok.cli(&["models", "list", "-v"]);
    assert_eq!(long.code, 0, "{long:?}");
    let document = long.json().to_string();
    for part in ["\"rten\"", "\"onnxruntime\"", "fastest", "median_ms"] {
        assert!(document.contains(part), "no {part} in {document}");
    }
}

#[test]
fn doctor_says_what_is_there() {
    let seen = Finished::kapok(&["doctor", "--output", "json"]);
    assert!([0, 1].contains(&seen.code), "{seen:?}");
    let document = seen.json().to_string();
    assert!(
        document.contains("onnxruntime") || document.contains("ONNX Runtime"),
        "{document}"
    );
    assert!(document.contains("rten"), "{document}");
}

#[test]
fn completions_and_help_are_there() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Finished::kapok(&["completions", shell]);
        assert_eq!(script.code, 0, "{script:?}");
        assert!(script.stdout.contains("kapok"), "{shell}");
    }
    for command in [
        "up", "infer", "embed", "chat", "models", "explain", "doctor",
    ] {
        let help = Finished::kapok(&[command, "--help"]);
        assert_eq!(help.code, 0, "{help:?}");
        assert!(
            help.stdout.contains("Example") && help.stdout.contains("kapok "),
            "{command}: {}",
            help.stdout
        );
    }
    let wrong = Finished::kapok(&["serve"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn no_server_is_told_with_its_own_code() {
    let asked = Finished::kapok(&[
        "models",
        "list",
        "--url",
        "http://127.0.0.1:9",
        "--output",
        "json",
    ]);
    assert_eq!(asked.code, 69, "{asked:?}");
    assert!(asked.stderr.contains("127.0.0.1:9"), "{asked:?}");
    assert!(asked.stderr.contains("kapok up"), "{asked:?}");
}

#[test]
fn a_pipe_gets_plain_text_and_yaml_is_there() {
    let repository = Repository::new().builtin("identity", &Builtin::default());
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let url = kapok.url();
    let table = Finished::kapok(&["models", "list", "--url", &url]);
    assert_eq!(table.code, 0, "{table:?}");
    assert!(table.stdout.contains("identity"), "{table:?}");
    assert!(!table.stdout.contains('\u{1b}'), "{table:?}");
    let yaml = Finished::kapok(&["models", "list", "--url", &url, "--output", "yaml"]);
    assert_eq!(yaml.code, 0, "{yaml:?}");
    assert!(yaml.stdout.contains("identity"), "{yaml:?}");
}
