//! Tensors in shared memory, over both wires.

use serde_json::{Value, json};

use protocol::resource::SharedMemory;

use super::Served;
use crate::Config;
use crate::regions::tests::Object;

/// perf_analyzer sends its JSON as a form.
const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

async fn register(served: &Served, name: &str, key: &str, bytes: usize) -> super::Answer {
    let path = format!("/v2/systemsharedmemory/region/{name}/register");
    let body = json!({"key": key, "offset": 0, "byte_size": bytes}).to_string();
    served.ask("POST", &path, FORM, body.as_bytes()).await
}

fn placed(name: &str, region: &str, bytes: usize, offset: u64) -> Value {
    json!({"name": name, "parameters": {
        "shared_memory_region": region, "shared_memory_byte_size": bytes, "shared_memory_offset": offset}})
}

fn infer(input: Value, output: &Value) -> String {
    let mut input = input;
    let fields = input.as_object_mut().expect("an object");
    fields.insert("datatype".to_owned(), json!("FP32"));
    fields.insert("shape".to_owned(), json!([2]));
    json!({"inputs": [input], "outputs": [output]}).to_string()
}

#[tokio::test]
async fn tensors_go_in_and_come_out_through_regions() {
    let served = Served::start(&[]);
    let tensor = [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat();
    let input = Object::new("http-in", &tensor);
    let output = Object::new("http-out", &[0; 16]);
    for (name, object, bytes) in [("in", &input, 8), ("out", &output, 16)] {
        let got = register(&served, name, &object.key(), bytes).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let status = served.get("/v2/systemsharedmemory/status").await.json();
    assert_eq!(
        status[0],
        json!({"name": "in", "key": input.key(), "offset": 0, "byte_size": 8})
    );
    assert_eq!(status.as_array().map(Vec::len), Some(2));
    let body = infer(placed("x", "in", 8, 0), &placed("x", "out", 8, 4));
    let got = served.post("/v2/models/echo/infer", &body).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(
        got.json()["outputs"][0],
        json!({"name": "x", "datatype": "FP32", "shape": [2]})
    );
    assert_eq!(output.content()[4..12], tensor);
    for (input, output, status, part) in [
        (
            placed("x", "none", 8, 0),
            placed("x", "out", 8, 0),
            404,
            "Unable to find shared memory region: 'none'",
        ),
        (
            placed("x", "in", 4, 0),
            placed("x", "out", 8, 0),
            400,
            "input byte size mismatch for input 'x' for model 'echo'. Expected 8, got 4",
        ),
        (
            placed("x", "in", 8, 0),
            placed("x", "out", 8, u64::MAX - 31),
            400,
            "Invalid offset for shared memory region",
        ),
        (
            placed("x", "in", 8, 0),
            placed("x", "out", 4, 0),
            500,
            "(4 bytes) should be at least 8 bytes to hold the results",
        ),
    ] {
        let got = served
            .post("/v2/models/echo/infer", &infer(input, &output))
            .await;
        assert_eq!(got.status, status, "{}", got.text());
        assert!(got.text().contains(part), "{}", got.text());
    }
    let again = register(&served, "in", &input.key(), 8).await;
    assert_eq!(again.status, 400);
    assert!(again.text().contains("already in manager"));
    let got = served
        .ask("POST", "/v2/systemsharedmemory/unregister", FORM, b"")
        .await;
    assert_eq!(got.status, 200);
    let status = served.get("/v2/systemsharedmemory/status").await;
    assert_eq!(status.text(), "[]");
}

#[tokio::test]
async fn cuda_is_answered_as_by_a_triton_without_a_gpu() {
    let served = Served::start(&[]);
    for (method, path, status, part) in [
        ("GET", "/v2/cudasharedmemory/status", 200, "[]"),
        ("POST", "/v2/cudasharedmemory/unregister", 200, ""),
        ("POST", "/v2/cudasharedmemory/region/a/unregister", 200, ""),
        (
            "GET",
            "/v2/cudasharedmemory/region/a/status",
            404,
            "Unable to find cuda shared memory region: 'a'",
        ),
        (
            "POST",
            "/v2/cudasharedmemory/region/a/register",
            400,
            "failed to register CUDA shared memory region: 'a', GPUs not supported",
        ),
    ] {
        let got = served.ask(method, path, FORM, b"").await;
        assert_eq!(got.status, status, "{path}");
        assert!(got.text().contains(part), "{path}: {}", got.text());
    }
}

#[tokio::test]
async fn shared_memory_is_for_this_machine_or_for_who_has_a_key() {
    let object = Object::new("allowed", &[0; 8]);
    for (shared_memory, loopback, status) in [
        (SharedMemory::Auto, true, 200),
        (SharedMemory::Auto, false, 403),
        (SharedMemory::On, false, 200),
        (SharedMemory::Off, true, 403),
    ] {
        let config = Config {
            shared_memory,
            loopback,
            ..Config::default()
        };
        let served = Served::with(config, &[]);
        let got = register(&served, "r", &object.key(), 8).await;
        assert_eq!(got.status, status, "{}", got.text());
        // perf_analyzer unregisters before it knows whether anything is there.
        let got = served
            .ask("POST", "/v2/systemsharedmemory/unregister", FORM, b"")
            .await;
        assert_eq!(got.status, 200);
    }
}

#[tokio::test]
async fn a_raw_body_is_the_models_one_input() {
    let served = Served::start(&[]);
    let tensor = [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat();
    let headers = "inference-header-content-length: 0\r\n";
    let got = served
        .ask("POST", "/v2/models/echo/infer", headers, &tensor)
        .await;
    assert_eq!(got.status, 200);
    let border = got.header("inference-header-content-length");
    let border: usize = border.and_then(|text| text.parse().ok()).expect("a border");
    let head: Value = serde_json::from_slice(&got.body[..border]).expect("JSON");
    assert_eq!(head["outputs"][0]["shape"], json!([2]));
    assert_eq!(got.body[border..], tensor);
}
