use serde_json::{Value, json};

use super::booked;
use super::upstream::FakeUpstream;
use super::{Served, eventually};
use crate::Config;
use crate::snapshot::tests::upstream;
use telemetry::Stage;

fn input(extra: &Value) -> Value {
    let mut input = json!({"name": "x", "shape": [2], "datatype": "FP32"});
    let fields = input.as_object_mut().expect("an object");
    fields.extend(extra.as_object().expect("an object").clone());
    json!({"id": "7", "inputs": [input]})
}

async fn binary(served: &Served, json: &str, length: usize, tensors: &[u8]) -> super::Answer {
    let headers = format!("inference-header-content-length: {length}\r\n");
    let body = [json.as_bytes(), tensors].concat();
    served
        .ask("POST", "/v2/models/echo/infer", &headers, &body)
        .await
}

#[tokio::test]
async fn tensors_go_in_and_come_out_as_json_and_as_bytes() {
    let served = Served::start(&[]);
    let body = input(&json!({"data": [1.5, -2.0]})).to_string();
    let got = served.post("/v2/models/echo/versions/1/infer", &body).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(got.json()["id"], "7");
    assert_eq!(got.json()["outputs"][0]["data"], json!([1.5, -2.0]));

    let mut body = input(&json!({"parameters": {"binary_data_size": 8}}));
    body["parameters"] = json!({"binary_data_output": true});
    let text = body.to_string();
    let tensor = [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat();
    let got = binary(&served, &text, text.len(), &tensor).await;
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    let length = got
        .header("inference-header-content-length")
        .expect("a length");
    let length: usize = length.parse().expect("a number");
    let head: Value = serde_json::from_slice(&got.body[..length]).expect("JSON");
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert_eq!(got.body[length..], tensor);
}

#[tokio::test]
async fn the_ledger_of_an_inference_balances() {
    let served = Served::start(&[]);
    let body = input(&json!({"data": [1, 2]})).to_string();
    let got = served.post("/v2/models/echo/infer", &body).await;
    let timing = got.header("server-timing").expect("a timing");
    for stage in ["parse", "input", "infer", "output", "encode", "total"] {
        assert!(
            timing.contains(&format!("{stage};dur=")),
            "{stage} in {timing}"
        );
    }
    let record = served.settled(got.request_id()).await;
    let sum: f64 = record.stages.iter().map(|stage| stage.ms).sum();
    assert!((sum - record.total_ms).abs() < 1e-6, "{record:?}");
    assert_eq!(record.operation, "oip infer");
    assert_eq!((&*record.target, record.status), ("local", 200));
    let shown = served
        .get_admin(&format!("/admin/v1/requests/{}", got.request_id()))
        .await;
    assert_eq!(shown.json()["model"], "echo");
}

#[tokio::test]
async fn wrong_bodies_are_refused_in_oips_words_and_the_next_is_served() {
    let config = Config {
        body_bytes_max: 4096,
        ..Config::default()
    };
    let served = Served::with(config, &[]);
    let eight = input(&json!({"parameters": {"binary_data_size": 8}})).to_string();
    let large = json!({"inputs": [{
        "name": "x", "shape": [1 << 28], "datatype": "FP32", "parameters": {"binary_data_size": 1 << 30}
    }]})
    .to_string();
    for (json, length, tensors, part) in [
        (
            &eight,
            eight.len(),
            &[0; 7][..],
            "promises 8 bytes, 7 are there",
        ),
        (&eight, eight.len(), &[], "promises 8 bytes, 0 are there"),
        (
            &eight,
            eight.len(),
            &[0; 9],
            "unexpected additional input data",
        ),
        (
            &eight,
            eight.len() + 9,
            &[],
            "Inference-Header-Content-Length is",
        ),
        (
            &eight,
            usize::MAX,
            &[],
            "Inference-Header-Content-Length is",
        ),
        (&eight, 3, &[], "parse"),
        (&large, large.len(), &[0; 8], "promises 1073741824 bytes"),
        (
            &eight,
            eight.len(),
            &[0; 4096],
            "exceeds the maximum allowed input size of 4096",
        ),
    ] {
        let got = binary(&served, json, length, tensors).await;
        let expected = if length == 0 { 501 } else { 400 };
        assert_eq!(got.status, expected, "{part}: {}", got.text());
        let message = got.json()["error"]
            .as_str()
            .expect("OIP's shape")
            .to_owned();
        assert!(message.contains(part), "{message} should say {part}");
    }
    let got = binary(&served, &eight, eight.len(), &[0; 8]).await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn a_tensor_at_fault_is_named() {
    let served = Served::start(&[]);
    let body = input(&json!({"parameters": {"binary_data_size": 8}})).to_string();
    let got = binary(&served, &body, body.len(), &[0; 5]).await;
    assert!(
        got.text().contains("`x`") || got.text().contains("'x'"),
        "{}",
        got.text()
    );
}

#[tokio::test]
async fn each_question_about_models_has_its_answer() {
    let served = Served::start(&[]);
    for (path, status, part) in [
        ("/v2", 200, "\"name\":\"kapok\""),
        ("/v2/health/live", 200, "{\"live\":true}"),
        ("/v2/health/ready", 503, "{\"ready\":false}"),
        ("/v2/models/echo", 200, "\"platform\":\"fake\""),
        ("/v2/models/echo/ready", 200, "\"ready\":true"),
        ("/v2/models/loading/ready", 400, "\"ready\":false"),
        ("/v2/models/echo/config", 200, "\"echo\""),
        ("/v2/models/echo/stats", 200, "model_stats"),
        ("/v2/models/stats", 200, "\"vectors\""),
        ("/v2/models/%65cho", 200, "\"name\":\"echo\""),
        (
            "/v2/models/none",
            404,
            "Request for unknown model: 'none' is not found",
        ),
        ("/v2/models/eco/ready", 404, "did you mean `echo`"),
        ("/v2/nothing", 404, "there is nothing at `/v2/nothing`"),
    ] {
        let got = served.get(path).await;
        assert_eq!(got.status, status, "{path}: {}", got.text());
        assert!(got.text().contains(part), "{path}: {}", got.text());
        assert!(got.header("x-request-id").is_some() && got.header("server-timing").is_some());
    }
    let all = served.post("/v2/repository/index", "").await;
    assert_eq!(all.json().as_array().map(Vec::len), Some(6));
    let ready = served
        .post("/v2/repository/index", "{\"ready\":true}")
        .await;
    assert_eq!(ready.json().as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_lane() {
    let served = Served::start(&[]);
    let mut client = served.client().await;
    let body = input(&json!({"data": [1, 2]})).to_string();
    client
        .send(
            "POST",
            "/v2/models/slow/infer",
            "x-request-id: gone\r\n",
            body.as_bytes(),
        )
        .await;
    let models = served.models.clone();
    let count = |counter: &std::sync::atomic::AtomicUsize| {
        counter.load(std::sync::atomic::Ordering::SeqCst)
    };
    eventually("the model is asked", || count(&models.asked) == 1).await;
    drop(client);
    eventually("the call is dropped", || count(&models.dropped) == 1).await;
    assert_eq!(served.settled("gone").await.status, 499);
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_frees_the_lane() {
    let served = Served::start(&[]);
    let body = input(&json!({"data": [1, 2]})).to_string();
    let headers = "x-request-timeout-ms: 20\r\n";
    let got = served
        .ask("POST", "/v2/models/slow/infer", headers, body.as_bytes())
        .await;
    assert_eq!(got.status, 504);
    let dropped = served
        .models
        .dropped
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(dropped, 1);
    let record = served.settled(got.request_id()).await;
    assert!(booked(&record, Stage::Queue) > 0.0, "{record:?}");
    assert!(booked(&record, Stage::Infer) == 0.0, "{record:?}");
}

#[tokio::test]
async fn a_bug_costs_its_own_request_only() {
    let served = Served::start(&[]);
    let body = input(&json!({"data": [1, 2]})).to_string();
    let mut client = served.client().await;
    client
        .send(
            "POST",
            "/v2/models/broken/infer",
            "x-request-id: bug\r\n",
            body.as_bytes(),
        )
        .await;
    let got = client.answer().await;
    assert_eq!((got.status, got.request_id()), (500, "bug"));
    assert!(!got.text().contains("a bug in a model"), "{}", got.text());
    assert_eq!(served.settled("bug").await.status, 500);
    let got = client
        .ask("POST", "/v2/models/echo/infer", "", body.as_bytes())
        .await;
    assert_eq!(got.status, 200, "on the same connection");
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_client_waits() {
    let served = Served::start(&[]);
    let body = input(&json!({"data": [1, 2]})).to_string();
    let mut client = served.client().await;
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.write(head.as_bytes()).await;
    assert_eq!(client.head().await.status, 100);
    client.write(body.as_bytes()).await;
    assert_eq!(client.answer().await.status, 200);
}

/// curl waits with a large body until it is asked for, and reads the answer when all of it is sent.
#[tokio::test]
async fn a_refusal_survives_a_body_that_was_asked_for() {
    let served = Served::start(&[]);
    let mut client = served.client().await;
    let head = "POST /v2/models/echo/infer HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n\
                transfer-encoding: chunked\r\n\r\n";
    client.write(head.as_bytes()).await;
    assert_eq!(client.head().await.status, 100);
    let part = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..(3 << 20) / 0x10000 {
        client.write(&part).await;
    }
    client.write(b"0\r\n\r\n").await;
    let got = client.answer().await;
    assert_eq!(got.status, 400, "{}", got.text());
    assert!(got.text().contains("exceeds"), "{}", got.text());
    let got = client.ask("GET", "/v2", "", b"").await;
    assert_eq!(got.status, 200, "the connection is as it was");
}

#[tokio::test]
async fn a_body_to_be_relayed_must_not_be_packed() {
    let served = Served::start(&[]);
    let path = "/v1/chat/completions";
    let got = served
        .ask("POST", path, "content-encoding: gzip\r\n", b"x")
        .await;
    assert_eq!(got.status, 415);
    assert!(got.text().contains("`gzip`"), "{}", got.text());
}

#[tokio::test]
async fn a_model_on_a_triton_is_reached_by_the_same_path() {
    let served = Served::start(&[]);
    let answer = super::upstream::json("{\"outputs\":[]}");
    let fake = FakeUpstream::start(&served.tasks, vec![vec![answer]]).await;
    let fields = json!({"url": fake.url(), "kind": "triton", "models": ["far"]});
    served
        .gateway
        .publish(&[upstream("triton", fields)])
        .expect("good resources");
    let got = served
        .post("/v2/models/far/versions/2/infer", "{\"inputs\":[]}")
        .await;
    assert_eq!((got.status, got.text()), (200, "{\"outputs\":[]}"));
    let request = fake.requests().remove(0);
    assert!(
        request.starts_with("POST /v2/models/far/versions/2/infer HTTP/1.1"),
        "{request}"
    );
    assert!(request.ends_with("{\"inputs\":[]}"), "{request}");
}
