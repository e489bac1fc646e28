//! With one `Key`, every call needs one.

use e2e::{Answer, FakeUpstream, Kapok};
use sha2::{Digest as _, Sha256};

fn key(name: &str, secret: &str, models: &str) -> String {
    let digest = Sha256::digest(secret.as_bytes());
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "---\napiVersion: kapok.dev/v1alpha1\nkind: Key\nmetadata: {{name: {name}}}\nspec:\n  sha256: {hash}\n{models}"
    )
}

#[test]
fn a_call_without_a_key_is_401_and_one_beyond_its_scope_403() {
    let fake = FakeUpstream::start(Answer::json("{\"choices\":[]}"));
    let upstream = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: llm}}\nspec: {{url: {}}}\n",
        fake.url()
    );
    let config =
        upstream + &key("all", "sk-all", "") + &key("some", "sk-some", "  models: [\"qwen-*\"]\n");
    let kapok = Kapok::new().config(config).start();
    let ask = |secret: Option<&str>, model: &str| {
        let client = match secret {
            Some(secret) => kapok.http().bearer(secret),
            None => kapok.http(),
        };
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        client.post("/v1/chat/completions", body)
    };
    for (secret, model, status, kind) in [
        (None, "qwen-7b", 401, "authentication_error"),
        (Some("sk-wrong"), "qwen-7b", 401, "authentication_error"),
        (Some(""), "qwen-7b", 401, "authentication_error"),
        (Some("sk-some"), "llama", 403, "permission_error"),
    ] {
        let answer = ask(secret, model);
        assert_eq!(
            answer.status,
            status,
            "{secret:?} {model}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["error"]["type"], kind);
        assert!(
            !answer.text().contains("sk-"),
            "no secret in {}",
            answer.text()
        );
    }
    assert_eq!(fake.received().len(), 0, "the upstream never saw them");
    assert_eq!(ask(Some("sk-some"), "qwen-7b").status, 200);
    assert_eq!(ask(Some("sk-all"), "llama").status, 200);
    for request in fake.wait_for_requests(2) {
        let sent = request.header("authorization").unwrap_or_default();
        assert!(!sent.contains("sk-"), "our key went to the upstream");
    }

    // The other doors ask too; health does not.
    let index = |client: e2e::Client| client.post("/v2/repository/index", "").status;
    assert_eq!(index(kapok.http()), 401);
    assert_eq!(index(kapok.http().bearer("sk-all")), 200);
    assert_eq!(kapok.http().get("/health/ready").status, 200);
    assert_eq!(kapok.http().get("/v2/health/live").status, 200);
    assert!(!kapok.log().contains("sk-"), "no secret in the log");
}
