//! `kapok.yaml`: routes, and what a mistake in it says.

use e2e::repository::Builtin;
use e2e::{Answer, FakeUpstream, Kapok, Repository};
use serde_json::json;

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: kapok.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}"
    )
}

#[test]
fn exact_names_win_over_prefixes_and_prefixes_over_nothing() {
    let answers = |name: &str| FakeUpstream::start(Answer::json(&json!({"by": name}).to_string()));
    let (a, b, c) = (answers("a"), answers("b"), answers("c"));
    let repository = Repository::new().builtin("identity", &Builtin::default());
    let upstream = |name: &str, fake: &FakeUpstream| {
        document(
            "Upstream",
            name,
            &format!("  url: {}\n  models: [own-{name}]\n", fake.url()),
        )
    };
    let route = |name: &str, models: &str, target: &str| {
        document(
            "Route",
            name,
            &format!("  models: [{models}]\n  targets: [{{upstream: {target}}}]\n"),
        )
    };
    let config = [
        document(
            "Node",
            "node",
            &format!("  modelRepositories: [{:?}]\n", repository.path()),
        ),
        upstream("a", &a),
        upstream("b", &b),
        upstream("c", &c),
        route("exact", "qwen-7b", "a"),
        route("prefix", "\"qwen-*\"", "b"),
        route("longer", "\"qwen-72b-*\"", "c"),
    ]
    .concat();
    let kapok = Kapok::new().config(config).start();
    for (model, by) in [
        ("qwen-7b", "a"),
        ("qwen-14b", "b"),
        ("qwen-", "b"),
        ("qwen-72b-chat", "c"),
        ("own-a", "a"),
    ] {
        let body = json!({"model": model}).to_string();
        let answer = kapok.http().post("/v1/chat/completions", body);
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        assert_eq!(answer.json()["by"], by, "{model}");
    }
    let nobody = kapok
        .http()
        .post("/v1/chat/completions", r#"{"model":"llama"}"#);
    assert_eq!(nobody.status, 404, "{}", nobody.text());
    assert_eq!(nobody.json()["error"]["code"], "model_not_found");
    assert_eq!(kapok.http().get("/v2/models/identity/ready").status, 200);
}

#[test]
fn a_mistake_names_line_column_and_the_nearest_field() {
    let wrong_field = document(
        "Upstream",
        "llm",
        "  url: http://127.0.0.1:1\n  modles: [x]\n",
    );
    let wrong_kind = document("Upstraem", "llm", "  url: http://127.0.0.1:1\n");
    let wrong_type = document(
        "Upstream",
        "llm",
        "  url: http://127.0.0.1:1\n  connectTimeoutMs: soon\n",
    );
    let unknown_target = document(
        "Route",
        "r",
        "  models: [m]\n  targets: [{upstream: nobody}]\n",
    );
    for (what, yaml, parts) in [
        ("field", wrong_field, ["kapok.yaml:8:3", "modles", "models"]),
        ("kind", wrong_kind, ["kapok.yaml:3", "Upstraem", "Upstream"]),
        (
            "type",
            wrong_type,
            ["kapok.yaml:8:21", "`llm`", "whole number"],
        ),
        ("target", unknown_target, ["nobody", "pstream", ""]),
        (
            "not YAML",
            "kind: [Upstream\n".to_owned(),
            ["kapok.yaml:", "", ""],
        ),
    ] {
        let ended = Kapok::new().config(yaml).run();
        assert_eq!(ended.code, 2, "{what}: {ended:?}");
        for part in parts {
            assert!(
                ended.stderr.contains(part),
                "{what}: no `{part}` in\n{}",
                ended.stderr
            );
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let ended = Kapok::new().arg("--config").arg("nowhere.yaml").run();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("nowhere.yaml"), "{ended:?}");
}
