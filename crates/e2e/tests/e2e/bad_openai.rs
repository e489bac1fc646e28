//! The same through OpenAI's door: `error.param` names the field, and an upstream's failure is told as one.

use e2e::{Answer, FakeUpstream, Kapok, Response};
use serde_json::{Value, json};

use crate::bad_input::{repository, still_serves};

/// `error` of an OpenAI error, its shape checked.
fn openai_error(answer: &Response) -> Value {
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    let body = answer.json();
    let error = body["error"].clone();
    assert!(error["message"].is_string(), "{body}");
    assert!(error["type"].is_string(), "{body}");
    for field in ["param", "code"] {
        assert!(error.get(field).is_some(), "no {field}: {body}");
    }
    error
}

type OpenAiCase<'a> = (&'a str, &'a str, &'a str, u16, Option<&'a str>);

fn openai_cases(deep: &str) -> [OpenAiCase<'_>; 10] {
    [
        (
            "unknown model",
            "/v1/embeddings",
            r#"{"model":"nope","input":"x"}"#,
            404,
            Some("model"),
        ),
        (
            "unknown chat model",
            "/v1/chat/completions",
            r#"{"model":"nope","messages":[]}"#,
            404,
            Some("model"),
        ),
        (
            "no model",
            "/v1/embeddings",
            r#"{"input":"x"}"#,
            400,
            Some("model"),
        ),
        (
            "no chat model",
            "/v1/chat/completions",
            r#"{"messages":[]}"#,
            400,
            Some("model"),
        ),
        (
            "model is a number",
            "/v1/chat/completions",
            r#"{"model":7}"#,
            400,
            Some("model"),
        ),
        ("not JSON", "/v1/embeddings", "{", 400, None),
        ("chat not JSON", "/v1/chat/completions", "{", 400, None),
        ("deep", "/v1/embeddings", deep, 400, None),
        ("deep chat", "/v1/chat/completions", deep, 400, None),
        (
            "not a text model",
            "/v1/embeddings",
            r#"{"model":"identity","input":"x"}"#,
            400,
            Some("model"),
        ),
    ]
}

#[test]
fn bad_openai_requests_are_answered_by_name() {
    let repository = repository();
    let fake = FakeUpstream::start(Answer::json("{}"));
    let models = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: llm}}\nspec:\n  url: {}\n  models: [chat]\n",
        fake.url()
    );
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .config(models)
        .start();
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (what, path, body, status, param) in openai_cases(&deep) {
        let answer = kapok.http().post(path, body);
        let error = openai_error(&answer);
        assert_eq!(answer.status, status, "{what}: {error}");
        if let Some(param) = param {
            assert_eq!(error["param"], param, "{what}: {error}");
        }
        still_serves(&kapok.http());
    }
    assert!(fake.received().is_empty(), "{:?}", fake.received());
}

#[test]
fn an_upstream_that_is_down_or_silent_is_reported() {
    let gone = FakeUpstream::start(Answer::new());
    let gone_url = gone.url();
    drop(gone);
    let silent = FakeUpstream::start(Answer::silent());
    let resetting = FakeUpstream::start(Answer::reset());
    let document = |name: &str, url: &str| {
        format!(
            "---\napiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec:\n  url: {url}\n  models: [{name}]\n"
        )
    };
    let config = document("gone", &gone_url)
        + &document("silent", &silent.url())
        + &document("resetting", &resetting.url());
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    for (model, status) in [("gone", 502), ("silent", 504), ("resetting", 502)] {
        let body = json!({"model": model, "messages": []}).to_string();
        let answer = kapok
            .http()
            .header("x-request-timeout-ms", "400")
            .post("/v1/chat/completions", body);
        let error = openai_error(&answer);
        assert_eq!(answer.status, status, "{model}: {error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(model), "names the upstream: {message}");
    }
    silent.wait_for_disconnect();
    assert_eq!(kapok.http().get("/health/live").status, 200);
}
