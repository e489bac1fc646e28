use protocol::resource::{KeySpec, Spec};
use serde_json::json;

use super::upstream::{FakeUpstream, Step, json as answer};
use super::{Served, booked};
use crate::Config;
use crate::snapshot::tests::{resource, upstream};

#[tokio::test]
async fn models_here_and_upstream_are_one_list() {
    let served = Served::start(&[]);
    let list = "{\"data\":[{\"id\":\"asked\",\"object\":\"model\"},{\"id\":\"org/chat\"}]}";
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer(list)]]).await;
    served
        .gateway
        .publish(&[
            upstream("gpu", json!({"models": ["org/chat", "echo"]})),
            upstream(
                "any",
                json!({"url": fake.url(), "apiKey": {"value": "secret"}}),
            ),
            // Nobody answers there; the list comes without it.
            upstream("gone", json!({})),
        ])
        .expect("good resources");
    let got = served.get("/v1/models").await;
    let list = got.json();
    let owners: Vec<(&str, &str)> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().expect("text");
            (text("id"), text("owned_by"))
        })
        .collect();
    let here = |name| (name, "kapok");
    assert_eq!(
        owners,
        [
            ("asked", "any"),
            here("broken"),
            here("echo"),
            here("loading"),
            ("org/chat", "gpu"),
            here("repeat"),
            here("slow"),
            here("vectors"),
        ]
    );
    assert_eq!(
        served.get("/v1/models/org/chat").await.json()["owned_by"],
        "gpu"
    );
    assert!(fake.requests()[0].contains("authorization: Bearer secret\r\n"));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_silent_upstream_does_not_hide_the_next() {
    let served = Served::start(&[]);
    let silent = FakeUpstream::start(&served.tasks, vec![vec![Step::UntilGone]]).await;
    let list = answer("{\"data\":[{\"id\":\"asked\"}]}");
    let fake = FakeUpstream::start(&served.tasks, vec![vec![list]]).await;
    served
        .gateway
        .publish(&[
            upstream("a", json!({"url": silent.url()})),
            upstream("b", json!({"url": fake.url()})),
        ])
        .expect("good resources");
    let got = served.get("/v1/models").await;
    assert!(got.text().contains("\"asked\""), "{}", got.text());
    let record = served.settled(got.request_id()).await;
    let waited = booked(&record, telemetry::Stage::Upstream);
    assert!(waited >= 900.0, "{record:?}");
}

#[tokio::test]
async fn text_becomes_vectors_here() {
    let served = Served::start(&[]);
    let got = served
        .post(
            "/v1/embeddings",
            "{\"model\":\"vectors\",\"input\":[\"a\",\"b\"]}",
        )
        .await;
    assert_eq!(got.status, 200, "{}", got.text());
    let answer = got.json();
    assert_eq!(answer["data"][1]["embedding"], json!([0.5, -0.5]));
    assert_eq!(answer["usage"]["total_tokens"], 6);
    let record = served.settled(got.request_id()).await;
    assert_eq!(
        (record.operation, &*record.target),
        ("openai embeddings", "local")
    );
}

#[tokio::test]
async fn what_cannot_be_routed_is_refused_in_openais_words() {
    let config = Config {
        body_bytes_max: 200,
        ..Config::default()
    };
    let served = Served::with(config, &[]);
    let large = format!("{{\"model\":\"{}\"}}", "m".repeat(300));
    for (path, body, status, kind, part) in [
        ("/v1/embeddings", "", 400, "invalid_request_error", "JSON"),
        ("/v1/embeddings", "{", 400, "invalid_request_error", "JSON"),
        (
            "/v1/chat/completions",
            "[]",
            400,
            "invalid_request_error",
            "object",
        ),
        (
            "/v1/chat/completions",
            "{}",
            400,
            "invalid_request_error",
            "model",
        ),
        (
            "/v1/chat/completions",
            "{\"model\":\"vectr\"}",
            404,
            "invalid_request_error",
            "did you mean `vectors`?",
        ),
        (
            "/v1/chat/completions",
            "{\"model\":\"vectors\"}",
            400,
            "invalid_request_error",
            "does not take requests of `openai chat.completions`",
        ),
        (
            "/v1/embeddings",
            "{\"model\":\"vectors\"}",
            400,
            "invalid_request_error",
            "input",
        ),
        (
            "/v1/chat/completions",
            &large,
            413,
            "invalid_request_error",
            "larger than 200 bytes",
        ),
    ] {
        let got = served.post(path, body).await;
        assert_eq!(got.status, status, "{path} {body}: {}", got.text());
        let answer = got.json();
        let error = answer["error"].as_object().expect("OpenAI's shape");
        assert_eq!(error["type"], kind, "{path} {body}");
        assert!(
            error["message"].as_str().expect("text").contains(part),
            "{}",
            got.text()
        );
        assert!(error.contains_key("param") && error.contains_key("code"));
    }
}

/// A client reads only when it has sent everything; a refusal must still be there then.
#[tokio::test]
async fn a_refusal_survives_a_client_that_is_still_sending() {
    let key = Spec::Key(KeySpec {
        sha256: "ab".repeat(32),
        models: None,
        ..KeySpec::default()
    });
    let large = format!("{{\"model\":\"m\",\"text\":\"{}\"}}", "x".repeat(3 << 20));
    for (resources, status) in [(vec![], 413), (vec![resource("team", key)], 401)] {
        let served = Served::start(&resources);
        let mut client = served.client().await;
        for _ in 0..2 {
            let got = client
                .ask("POST", "/v1/chat/completions", "", large.as_bytes())
                .await;
            assert_eq!(got.status, status, "{}", got.text());
        }
    }
}

#[tokio::test]
async fn a_process_that_is_starting_is_waited_for_by_name() {
    let fields =
        json!({"models": ["m"], "process": {"command": ["server", "--api-key", "secret"]}});
    let served = Served::start(&[upstream("llama", fields)]);
    assert!(
        served
            .gateway
            .upstream_is("llama", crate::Readiness::Down("loading the model"))
    );
    assert!(!served.gateway.upstream_is("other", crate::Readiness::Ready));
    let got = served
        .post("/v1/chat/completions", "{\"model\":\"m\"}")
        .await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
    let error = &got.json()["error"];
    assert_eq!(error["message"], "upstream `llama` is not ready");
    let record = served.settled(got.request_id()).await;
    assert_eq!(
        record.reason,
        "upstream `llama` is not ready: loading the model"
    );
    let ready = served.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["waiting_for"][0]["name"], "llama");
    let shown = served.get_admin("/admin/v1/upstreams").await;
    assert_eq!(shown.json()[0]["reason"], "loading the model");
    assert_eq!(shown.json()[0]["process"], json!(["server"]));
}

#[tokio::test]
async fn with_a_key_configured_only_probes_go_without() {
    let spec = |models: Option<Vec<String>>, sha256: &str| {
        Spec::Key(KeySpec {
            sha256: sha256.to_owned(),
            models,
            ..KeySpec::default()
        })
    };
    // printf %s KEY | sha256sum, for `sesame` and `scoped`.
    let served = Served::start(&[
        resource(
            "team",
            spec(
                None,
                "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272",
            ),
        ),
        resource(
            "guest",
            spec(
                Some(vec!["vec*".to_owned()]),
                "abc3d82314f3edc1385fc7b9b0b092c801b9db30cefdc11fe04ee4be9685cd6d",
            ),
        ),
    ]);
    for (path, key, status) in [
        ("/health/live", "", 200),
        ("/v2/health/live", "", 200),
        ("/v2/health/ready", "", 503),
        ("/v1/models", "", 401),
        ("/v2", "", 401),
        ("/metrics", "", 401),
        ("/v1/models", "authorization: Bearer nonsense\r\n", 401),
        ("/v1/models", "authorization: Bearer sesame\r\n", 200),
        ("/v2/models/echo", "x-api-key: sesame\r\n", 200),
        ("/v2/models/echo", "x-api-key: scoped\r\n", 403),
        ("/v2/models/vectors", "x-api-key: scoped\r\n", 200),
    ] {
        let got = served.ask("GET", path, key, b"").await;
        assert_eq!(got.status, status, "{path} {key}: {}", got.text());
    }
    // What is missing is for operators; that something is, for everybody.
    for key in ["", "api-key: scoped\r\n", "api-key: nonsense\r\n"] {
        let ready = served.ask("GET", "/health/ready", key, b"").await;
        assert_eq!((ready.status, ready.text()), (503, "{\"ready\":false}"));
    }
    let key = "api-key: sesame\r\n";
    let ready = served.ask("GET", "/health/ready", key, b"").await;
    assert_eq!(ready.json()["waiting_for"][0]["name"], "loading");
    let ready = served.get_admin("/health/ready").await;
    assert_eq!(ready.json()["waiting_for"][0]["name"], "loading");
    let seen = served
        .ask("GET", "/v1/models", "api-key: scoped\r\n", b"")
        .await;
    assert_eq!(seen.json()["data"].as_array().map(Vec::len), Some(1));
    let mut admin = super::Client::connect(served.admin).await;
    let refused = admin
        .ask("GET", "/admin/v1/requests", "api-key: scoped\r\n", b"")
        .await;
    assert_eq!(refused.status, 403);
    let shown = admin
        .ask(
            "GET",
            "/admin/v1/requests?limit=2",
            "api-key: sesame\r\n",
            b"",
        )
        .await;
    assert_eq!(shown.json().as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_key_of_ours_stays_here() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer("{}")]]).await;
    let key = Spec::Key(KeySpec {
        sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272".to_owned(),
        models: None,
        ..KeySpec::default()
    });
    let up = upstream("up", json!({"url": fake.url()}));
    served
        .gateway
        .publish(&[up, resource("team", key)])
        .expect("good resources");
    for header in ["authorization: Bearer sesame\r\n", "x-api-key: sesame\r\n"] {
        let got = served
            .ask("POST", "/v1/responses", header, b"{\"model\":\"m\"}")
            .await;
        assert_eq!(got.status, 200);
    }
    for request in fake.requests() {
        assert!(!request.contains("sesame"), "{request}");
    }
}

#[tokio::test]
async fn a_key_for_some_models_opens_no_unknown_call() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer("{}")]]).await;
    let key = Spec::Key(KeySpec {
        sha256: "abc3d82314f3edc1385fc7b9b0b092c801b9db30cefdc11fe04ee4be9685cd6d".to_owned(),
        models: Some(vec!["m".to_owned()]),
        ..KeySpec::default()
    });
    let up = upstream("up", json!({"url": fake.url()}));
    served
        .gateway
        .publish(&[up, resource("guest", key)])
        .expect("good resources");
    for (path, status) in [
        ("/v1/responses", 200),
        ("/v1/audio/speech", 200),
        ("/v1/chat/completions", 200),
        ("/v1/load_lora_adapter", 403),
        ("/v1/responses/../load_lora_adapter", 404),
    ] {
        let key = "api-key: scoped\r\n";
        let got = served.ask("POST", path, key, b"{\"model\":\"m\"}").await;
        assert_eq!(got.status, status, "{path}: {}", got.text());
    }
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn a_name_of_any_length_is_refused_and_not_kept() {
    let served = Served::start(&[]);
    for (name, status) in [("m".repeat(512), 404), ("é".repeat(300_000), 400)] {
        let body = json!({ "model": name }).to_string();
        let got = served.post("/v1/chat/completions", &body).await;
        assert_eq!(got.status, status);
        assert_eq!(got.json()["error"]["param"], "model");
        let record = served.settled(got.request_id()).await;
        assert!(record.model.len() <= 512);
    }
    // An error can repeat what the client sent, too.
    let path = format!("/v1/models/{}", "é".repeat(10_000));
    let got = served.get(&path.replace('é', "%C3%A9")).await;
    assert_eq!(got.status, 404);
    let record = served.settled(got.request_id()).await;
    let error = record.error.as_deref().expect("an error");
    assert!(error.len() <= (2 << 10) + 3 && error.ends_with('…'));
}
