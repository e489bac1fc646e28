//! Requests without a model, forms, and bodies that are passed on as they arrive.

use base::Tasks;
use serde_json::json;

use super::client::{Client, find};
use super::upstream::{FakeUpstream, Step, json as answer_json, send, stream_head};
use super::{Served, eventually, within};
use crate::Config;
use crate::snapshot::tests::{route, upstream};

async fn start(config: Config, steps: Vec<Vec<Step>>) -> (Served, FakeUpstream) {
    let served = Served::with(config, &[]);
    let fake = FakeUpstream::start(&served.tasks, steps).await;
    let resources = [upstream("u", json!({"url": fake.url()}))];
    served.gateway.publish(&resources).expect("good resources");
    (served, fake)
}

fn small() -> Config {
    Config {
        body_bytes_max: 64 << 10,
        upload_bytes_max: 8 << 20,
        ..Config::default()
    }
}

fn form(parts: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, content) in parts {
        form.push_str(&format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n"
        ));
    }
    form + "--b--\r\n"
}

const FORM: &str = "content-type: multipart/form-data; boundary=b\r\n";

#[tokio::test]
async fn what_an_upstream_keeps_is_asked_for_by_its_path() {
    let (served, fake) = start(small(), vec![vec![answer_json("{\"id\":\"file-1\"}")]]).await;
    for (method, path) in [
        ("GET", "/v1/files?limit=2"),
        ("GET", "/v1/files/file-1/content"),
        ("DELETE", "/v1/files/file-1"),
        ("GET", "/v1/responses/resp_1"),
        ("GET", "/v1/messages/batches"),
    ] {
        let answer = served.ask(method, path, "", b"").await;
        assert_eq!((answer.status, answer.text()), (200, "{\"id\":\"file-1\"}"));
        let requests = fake.requests();
        let last = requests.last().expect("one");
        assert!(
            last.starts_with(&format!("{method} {path} HTTP/1.1\r\n")),
            "{last}"
        );
    }
    let answer = served
        .post("/v1/batches", "{\"input_file_id\":\"file-1\"}")
        .await;
    assert_eq!(answer.status, 200);
    assert!(
        fake.requests()
            .last()
            .expect("one")
            .ends_with("{\"input_file_id\":\"file-1\"}")
    );
}

#[tokio::test]
async fn a_route_says_who_keeps_files() {
    let tasks = Tasks::new();
    let fake = FakeUpstream::start(&tasks, vec![vec![answer_json("{}")]]).await;
    let listed = upstream("u", json!({"url": fake.url(), "models": ["m"]}));
    let served = Served::start(std::slice::from_ref(&listed));
    let refused = served.get("/v1/files").await;
    assert_eq!(refused.status, 404);
    let message = refused.json()["error"]["message"].clone();
    let message = message.as_str().expect("a message");
    assert!(message.contains("models: [\"/v1/files*\"]"), "{message}");

    let served = Served::start(&[listed, route("files", &["/v1/files*"], &[("u", 1)])]);
    assert_eq!(served.get("/v1/files/file-1").await.status, 200);
    assert_eq!(served.get("/v1/batches").await.status, 404);
}

#[tokio::test]
async fn a_file_larger_than_any_body_passes_without_being_held() {
    let (served, fake) = start(small(), vec![vec![answer_json("{}")]]).await;
    let content = "0123456789abcdef".repeat(4 << 16);
    let form = form(&[("purpose", "batch"), ("file", &content)]);
    assert!(form.len() > 4 << 20);
    let answer = served.ask("POST", "/v1/files", FORM, form.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let request = &fake.requests()[0];
    let body = request.split_once("\r\n\r\n").expect("a body").1;
    assert!(body == form, "{} bytes of {}", body.len(), form.len());
    let head = request
        .split_once("\r\n\r\n")
        .expect("a head")
        .0
        .to_lowercase();
    assert!(
        head.contains(&format!("content-length: {}", form.len())),
        "{head}"
    );
}

#[tokio::test]
async fn an_upload_has_a_limit_too() {
    let (served, fake) = start(small(), vec![vec![Step::UntilGone]]).await;
    let head = format!("{FORM}content-length: 9000000\r\nexpect: 100-continue\r\n");
    let mut client = served.client().await;
    let head = format!("POST /v1/files HTTP/1.1\r\nhost: test\r\n{head}\r\n");
    client.write(head.as_bytes()).await;
    let refused = within("a refusal", client.answer()).await;
    assert_eq!(refused.status, 413);
    assert!(
        refused.text().contains("uploadBytesMax"),
        "{}",
        refused.text()
    );

    // In chunks nobody knows before.
    let mut client = served.client().await;
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: test\r\n{FORM}transfer-encoding: chunked\r\n\r\n"
    );
    client.write(head.as_bytes()).await;
    let chunk = [b"100000\r\n".as_slice(), &[b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..9 {
        client.write(&chunk).await;
    }
    let refused = within("a refusal", client.answer()).await;
    assert_eq!(refused.status, 413, "{}", refused.text());
    eventually("the upstream is left alone", || fake.gone() == 1).await;
}

#[tokio::test]
async fn the_model_of_a_form_decides_wherever_it_stands() {
    let (served, fake) = start(small(), vec![vec![answer_json("{\"text\":\"hi\"}")]]).await;
    let audio = "R".repeat(20_000);
    for parts in [
        [("model", "whisper-1"), ("file", audio.as_str())],
        [("file", audio.as_str()), ("model", "whisper-1")],
    ] {
        let form = form(&parts);
        let path = "/v1/audio/transcriptions";
        let answer = served.ask("POST", path, FORM, form.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let record = served.settled(answer.request_id()).await;
        assert_eq!(record.model, "whisper-1");
        let requests = fake.requests();
        assert!(
            requests.last().expect("one").ends_with(&form),
            "bytes were changed"
        );
    }
    let late = form(&[("file", &"x".repeat(70_000)), ("model", "m")]);
    let path = "/v1/audio/transcriptions";
    let refused = served.ask("POST", path, FORM, late.as_bytes()).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("larger than"), "{}", refused.text());
    // A large file behind the model is not held either.
    let form = form(&[("model", "whisper-1"), ("file", &"x".repeat(3 << 20))]);
    let answer = served
        .ask("POST", "/v1/audio/transcriptions", FORM, form.as_bytes())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn an_upload_whose_client_leaves_reaches_nobody_as_complete() {
    let (served, fake) = start(small(), vec![vec![answer_json("{}")]]).await;
    let mut client = served.client().await;
    let head =
        format!("POST /v1/files HTTP/1.1\r\nhost: test\r\n{FORM}content-length: 3000000\r\n\r\n");
    client.write(head.as_bytes()).await;
    client.write(&[b'x'; 1 << 20]).await;
    eventually("the upstream is called", || fake.connections() == 1).await;
    drop(client);
    let settled = || {
        let latest = served.recent.latest(1);
        latest.first().is_some_and(|record| record.status == 499)
    };
    eventually("the request is given up", settled).await;
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn anthropics_messages_are_relayed_and_refused_in_its_own_words() {
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let whole = format!("{:x}\r\n{stop}\r\n0\r\n\r\n", stop.len());
    let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    let cut = format!("{:x}\r\n{ping}\r\n0\r\n\r\n", ping.len());
    let (served, fake) = start(
        small(),
        vec![
            vec![stream_head(), send(&whole)],
            vec![stream_head(), send(&cut)],
        ],
    )
    .await;
    let body = "{\"model\":\"claude\",\"max_tokens\":1,\"stream\":true}";
    let answer = served.post("/v1/messages", body).await;
    assert_eq!((answer.status, answer.text()), (200, stop));
    assert!(fake.requests()[0].ends_with(body));
    let answer = served.post("/v1/messages", body).await;
    let told = answer.text().strip_prefix(ping).expect("what came");
    assert!(
        told.starts_with("event: error\ndata: {\"type\":\"error\""),
        "{told}"
    );

    let refused = served.post("/v1/messages", "{}").await;
    assert_eq!(refused.status, 400);
    let error = refused.json();
    assert_eq!(error["type"], "error");
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert_eq!(error["request_id"], refused.request_id());

    let served = Served::start(&[upstream("t", json!({"kind": "triton"}))]);
    let refused = served.post("/v1/messages/count_tokens", body).await;
    assert_eq!(refused.json()["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn an_anthropic_upstream_gets_its_key_as_it_wants_it() {
    let tasks = Tasks::new();
    let fake = FakeUpstream::start(&tasks, vec![vec![answer_json("{}")]]).await;
    let key = json!({"value": "sk-theirs"});
    let fields = json!({"url": fake.url(), "kind": "anthropic", "apiKey": key});
    let served = Served::start(&[upstream("a", fields)]);
    let headers = "x-api-key: sk-clients\r\nanthropic-version: 2023-06-01\r\n";
    let body = b"{\"model\":\"claude\"}";
    let answer = served.ask("POST", "/v1/messages", headers, body).await;
    assert_eq!(answer.status, 200);
    let request = fake.requests().remove(0).to_lowercase();
    assert!(request.contains("x-api-key: sk-theirs"), "{request}");
    assert!(request.contains("anthropic-version: 2023-06-01"));
    assert!(!request.contains("clients") && !request.contains("authorization"));
    let refused = served
        .post("/v1/chat/completions", "{\"model\":\"claude\"}")
        .await;
    assert_eq!(refused.status, 404, "it does not speak OpenAI");
}

#[tokio::test]
async fn a_download_comes_as_it_is() {
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    let (served, _fake) = start(small(), vec![vec![send(&head), Step::Send(bytes.clone())]]).await;
    let mut client: Client = served.client().await;
    let answer = client.ask("GET", "/v1/files/f/content", "", b"").await;
    assert!(answer.body == bytes && answer.whole);
    assert!(find(&answer.body, &bytes[..64]).is_some());
}
