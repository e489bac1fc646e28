//! Calls that name no model, and calls about what one of several upstreams made.

use serde_json::json;

use protocol::resource::Spec;

use super::Served;
use super::upstream::{FakeUpstream, Step, json as answer_json, send};
use crate::snapshot::tests::{resource, route, upstream};

const FORM: &str = "content-type: multipart/form-data; boundary=b\r\n";
const IMAGE: &[u8] =
    b"--b\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n\x89PNG\0\xff\r\n--b--\r\n";

async fn fake(served: &Served, answer: Step) -> FakeUpstream {
    FakeUpstream::start(&served.tasks, vec![vec![answer]]).await
}

/// Who was asked, by how many requests each has seen.
fn seen(upstreams: &[&FakeUpstream]) -> Vec<usize> {
    upstreams
        .iter()
        .map(|upstream| upstream.requests().len())
        .collect()
}

#[tokio::test]
async fn a_call_without_a_model_goes_to_who_takes_anything_byte_for_byte() {
    let served = Served::start(&[]);
    let any = fake(&served, answer_json("{}")).await;
    let listed = fake(&served, answer_json("{}")).await;
    let resources = [
        upstream("any", json!({"url": any.url()})),
        upstream("listed", json!({"url": listed.url(), "models": ["m"]})),
    ];
    served.gateway.publish(&resources).expect("good resources");
    for (path, headers, body) in [
        (
            "/v1/moderations",
            "",
            b"{ \"input\":\"\\u00e9\" }".as_slice(),
        ),
        ("/v1/images/generations", "", b"{\"prompt\":\"a tree\"}"),
        ("/v1/images/edits", FORM, IMAGE),
        ("/v1/responses", "", b"{\"prompt\":{\"id\":\"pmpt_1\"}}"),
        (
            "/v1/realtime/calls",
            "content-type: application/sdp\r\n",
            b"v=0",
        ),
        ("/v1/chat/completions/chatcmpl-1", "", b"{\"metadata\":{}}"),
    ] {
        let answer = served.ask("POST", path, headers, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let requests = any.raw_requests();
        assert!(requests.last().expect("one").ends_with(body), "{path}");
    }
    assert_eq!(seen(&[&listed]), [0]);
}

#[tokio::test]
async fn a_call_without_a_model_that_nobody_takes_says_what_to_configure() {
    let listed = upstream("u", json!({"models": ["m"]}));
    let served = Served::start(&[listed]);
    for (method, path, status, told) in [
        (
            "POST",
            "/v1/moderations",
            400,
            "models: [\"/v1/moderations\"]",
        ),
        (
            "GET",
            "/v1/chat/completions",
            404,
            "models: [\"/v1/chat*\"]",
        ),
        ("DELETE", "/v1/skills/s", 404, "models: [\"/v1/skills*\"]"),
        ("POST", "/v1/chat/completions", 400, "provide a model"),
        ("POST", "/v1/load_lora_adapter", 400, "provide a model"),
        (
            "GET",
            "/v1/organization/users",
            404,
            "models: [\"/v1/organization*\"]",
        ),
    ] {
        let refused = served.ask(method, path, "", b"{}").await;
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        let message = refused.json()["error"]["message"].clone();
        let message = message.as_str().expect("a message");
        assert!(message.contains(told), "{path}: {message}");
    }
}

#[tokio::test]
async fn calls_that_we_do_not_know_need_a_route_of_their_own() {
    let served = Served::start(&[]);
    let fake = fake(&served, answer_json("{}")).await;
    let any = upstream("u", json!({"url": fake.url()}));
    let publish = |more: &[protocol::resource::Resource]| {
        let resources = [std::slice::from_ref(&any), more].concat();
        served.gateway.publish(&resources).expect("good resources");
    };
    let every = route("every", &["*"], &[("u", 1)]);
    for more in [&[][..], &[every]] {
        publish(more);
        assert_eq!(served.get("/v1/organization/users").await.status, 404);
        assert_eq!(
            served.post("/v1/unload_lora_adapter", "{}").await.status,
            400
        );
    }
    publish(&[route("admin", &["/v1/organization*"], &[("u", 1)])]);
    assert_eq!(served.get("/v1/organization/users").await.status, 200);
    let answer = served
        .ask("DELETE", "/v1/organization/users/u", "", b"")
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(served.get("/v1/projects/p/roles").await.status, 404);
}

#[tokio::test]
async fn a_model_that_we_do_not_know_is_asked_about_where_it_would_be_used() {
    let served = Served::start(&[]);
    let fake = fake(&served, answer_json("{\"id\":\"ft:m\",\"deleted\":true}")).await;
    let resources = [
        upstream("u", json!({"url": fake.url()})),
        route("named", &["chat"], &[("u", 1)]),
    ];
    served.gateway.publish(&resources).expect("good resources");
    assert_eq!(
        served.get("/v1/models/chat").await.json()["owned_by"],
        "kapok"
    );
    assert_eq!(served.get("/v1/models/ft:m").await.json()["deleted"], true);
    let deleted = served.ask("DELETE", "/v1/models/ft:m", "", b"").await;
    assert_eq!(deleted.json()["deleted"], true);
    let last = fake.requests().pop().expect("one");
    assert!(
        last.starts_with("DELETE /v1/models/ft:m HTTP/1.1\r\n"),
        "{last}"
    );
    served.gateway.publish(&[]).expect("good resources");
    let unknown = served.get("/v1/models/ft:m").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    let refused = served.ask("DELETE", "/v1/models/echo", "", b"").await;
    assert!(refused.text().contains("unload"), "{}", refused.text());
}

#[tokio::test]
async fn what_one_of_several_upstreams_made_is_asked_for_there() {
    let made = r#"{"object":"response","id":"resp_A"}"#;
    for first in [
        answer_json(made),
        send(&events(&format!(
            "event: response.created\ndata: {{\"response\":{made}}}\n\n"
        ))),
    ] {
        let served = Served::start(&[]);
        let a = fake(&served, first).await;
        let b = fake(&served, answer_json("{}")).await;
        let resources = [
            upstream("a", json!({"url": a.url(), "models": ["on-a", "both"]})),
            upstream("b", json!({"url": b.url(), "models": ["both"]})),
        ];
        served.gateway.publish(&resources).expect("good resources");
        let answer = served
            .post("/v1/responses", "{\"model\":\"on-a\",\"input\":\"x\"}")
            .await;
        assert_eq!(answer.status, 200);
        for turn in 2..10 {
            let answer = if turn % 2 == 0 {
                served.get("/v1/responses/resp_A/input_items").await
            } else {
                let body = r#"{"model":"both","previous_response_id":"resp_A"}"#;
                served.post("/v1/responses", body).await
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(seen(&[&a, &b]), [turn, 0]);
        }
        let answer = served.get("/v1/responses/resp_A").await;
        let record = served.settled(answer.request_id()).await;
        assert_eq!(record.reason, "upstream `a` made what is asked for");
        // Of another nobody knows.
        assert_eq!(served.get("/v1/responses/resp_B").await.status, 404);
    }
}

#[tokio::test]
async fn nobody_else_is_asked_for_what_a_broken_upstream_made() {
    let served = Served::start(&[]);
    let breaks = vec![vec![answer_json("{\"id\":\"file-1\"}")], vec![Step::Close]];
    let a = FakeUpstream::start(&served.tasks, breaks).await;
    let b = fake(&served, answer_json("{\"error\":\"no such file\"}")).await;
    let resources = [
        upstream("a", json!({"url": a.url()})),
        upstream("b", json!({"url": b.url(), "pool": "other"})),
        route("files", &["/v1/files"], &[("a", 1)]),
    ];
    served.gateway.publish(&resources).expect("good resources");
    assert_eq!(served.post("/v1/files", "x").await.status, 200);
    let lost = served.get("/v1/files/file-1").await;
    assert_eq!(lost.status, 502, "{}", lost.text());
    assert_eq!(seen(&[&b]), [0]);
}

#[tokio::test]
async fn a_key_for_some_models_opens_no_path_that_it_does_not_name() {
    let served = Served::start(&[]);
    let fake = fake(&served, answer_json("{\"id\":\"resp_1\"}")).await;
    let key = |name: &str, secret: &str, spec: serde_json::Value| {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(secret.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut spec = spec;
        spec["sha256"] = json!(hex);
        let spec = serde_json::from_value(spec).expect("a key's fields");
        resource(name, Spec::Key(spec))
    };
    let resources = [
        upstream("u", json!({"url": fake.url()})),
        route("admin", &["/v1/organization*"], &[("u", 1)]),
        key(
            "some",
            "sk-some",
            json!({"models": ["m", "/v1/responses*"]}),
        ),
        key("all", "sk-all", json!({})),
    ];
    served.gateway.publish(&resources).expect("good resources");
    for (secret, method, path, body, status) in [
        ("sk-some", "POST", "/v1/responses", "{\"prompt\":{}}", 200),
        ("sk-some", "GET", "/v1/responses/resp_1", "", 200),
        (
            "sk-some",
            "POST",
            "/v1/moderations",
            "{\"input\":\"x\"}",
            403,
        ),
        ("sk-some", "GET", "/v1/files", "", 403),
        ("sk-some", "DELETE", "/v1/models/m", "", 403),
        ("sk-some", "GET", "/v1/organization/users", "", 403),
        ("sk-some", "GET", "/v1/models/other", "", 404),
        (
            "sk-all",
            "POST",
            "/v1/moderations",
            "{\"input\":\"x\"}",
            200,
        ),
        ("sk-all", "GET", "/v1/organization/users", "", 200),
    ] {
        let headers = format!("authorization: Bearer {secret}\r\n");
        let answer = served.ask(method, path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{secret} {path}: {}", answer.text());
    }
}

fn events(events: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
        events.len()
    )
}
