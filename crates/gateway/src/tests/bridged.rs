//! Upstreams that speak one form of the protocol, asked in the other.

use prost::Message as _;
use protocol::oip::proto::{
    ModelConfigResponse, ModelInferResponse, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse,
};
use serde_json::{Value, json};

use super::Served;
use super::grpc::{Channel, infer};
use super::stream::{numbered, stream};
use crate::snapshot::tests::{route, upstream};

/// A gateway with models, and one before it that knows of one form alone.
fn pair(form: &str) -> (Served, Served) {
    let back = Served::start(&[]);
    let url = format!("http://{}", back.public);
    let front = Served::start(&[
        upstream("back", json!({"url": url, "kind": "triton", "oip": form})),
        route("all", &["*"], &[("back", 1)]),
    ]);
    (back, front)
}

#[tokio::test]
async fn rest_reaches_a_server_that_speaks_grpc_alone() {
    let (back, front) = pair("grpc");
    for path in [
        "/v2/models/echo",
        "/v2/models/echo/versions/1",
        "/v2/models/echo/ready",
        "/v2/models/loading/ready",
        "/v2/models/echo/config",
    ] {
        let (expected, found) = (back.get(path).await, front.get(path).await);
        assert_eq!(
            (found.status, found.text()),
            (expected.status, expected.text()),
            "{path}"
        );
    }
    let inputs = json!([{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, -2.0]}]);
    for binary in [false, true] {
        let parameters = json!({"binary_data_output": binary});
        let body = json!({"id": "7", "inputs": inputs, "parameters": parameters}).to_string();
        let expected = back.post("/v2/models/echo/infer", &body).await;
        let found = front.post("/v2/models/echo/infer", &body).await;
        assert_eq!(found.status, 200, "{:?}", found.body);
        assert!(found.body == expected.body, "{:?}", found.body);
        let length = "inference-header-content-length";
        assert_eq!(found.header(length), expected.header(length));
    }
    let body = json!({ "inputs": inputs }).to_string();
    for (path, status) in [
        ("/v2/models/nope/infer", 404),
        ("/v2/models/loading/infer", 503),
        ("/v2/models/echo/generate", 501),
    ] {
        let refused = front.post(path, &body).await;
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        assert!(refused.json()["error"].is_string());
    }
    let record = front
        .settled(front.get("/v2/models/echo").await.request_id())
        .await;
    assert_eq!((&*record.target, record.status), ("back", 200));
}

#[tokio::test]
async fn grpc_reaches_a_server_that_speaks_rest_alone() {
    let (back, front) = pair("rest");
    let mut direct = Channel::open(&back, back.public).await;
    let mut through = Channel::open(&front, front.public).await;
    let named = |name: &str| ModelReadyRequest {
        name: name.to_owned(),
        version: String::new(),
    };
    let decoded = |called: super::grpc::Called| {
        assert_eq!(called.status, "0", "{}", called.text);
        called.message.expect("a message")
    };
    for method in ["ModelMetadata", "ModelConfig"] {
        let expected = decoded(direct.call(method, &named("echo")).await);
        let found = decoded(through.call(method, &named("echo")).await);
        if method == "ModelMetadata" {
            let read = |bytes| ModelMetadataResponse::decode(bytes).expect("metadata");
            assert_eq!(read(found), read(expected));
        } else {
            let read = |bytes| ModelConfigResponse::decode(bytes).expect("a configuration");
            let name = |response: ModelConfigResponse| response.config.expect("one").name;
            assert_eq!(name(read(found)), name(read(expected)));
        }
    }
    for (model, expected) in [("echo", true), ("loading", false), ("nope", false)] {
        let found = decoded(through.call("ModelReady", &named(model)).await);
        let found = ModelReadyResponse::decode(found).expect("readiness");
        assert_eq!(found.ready, expected, "{model}");
    }
    let expected = decoded(direct.call("ModelInfer", &infer("echo")).await);
    let found = decoded(through.call("ModelInfer", &infer("echo")).await);
    let read = |bytes| ModelInferResponse::decode(bytes).expect("an answer");
    assert_eq!(read(found), read(expected));
    for (model, status) in [("nope", "5"), ("loading", "14")] {
        let refused = through.call("ModelInfer", &infer(model)).await;
        assert_eq!(refused.status, status, "{}", refused.text);
    }
    let refused = through.call("ModelStatistics", &named("echo")).await;
    assert_eq!(refused.status, "12", "{}", refused.text);
    let refused = stream(&front, &[], &[numbered("echo", "a", &[1.0])]).await;
    assert_eq!(refused.status, "12", "{}", refused.text);
}

#[tokio::test]
async fn any_model_that_takes_strings_and_gives_vectors_embeds() {
    let here = Served::start(&[]);
    let (_back, over_grpc) = pair("grpc");
    let (_other, over_rest) = pair("rest");
    let body = json!({"model": "lengths", "input": ["a", "four"], "encoding_format": "float"});
    for served in [&here, &over_grpc, &over_rest] {
        let answer = served.post("/v1/embeddings", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["data"][0]["embedding"], json!([1.0, 1.0]));
        assert_eq!(answer["data"][1]["embedding"], json!([4.0, 1.0]));
        assert_eq!(answer["model"], "lengths");
        assert_eq!(answer["usage"]["total_tokens"], 0);
    }
    for (body, part) in [
        (json!({"model": "echo", "input": "a"}), "of type FP32"),
        (json!({"model": "lengths", "input": [1, 2]}), "takes text"),
    ] {
        for served in [&here, &over_grpc] {
            let refused = served.post("/v1/embeddings", &body.to_string()).await;
            assert_eq!(refused.status, 400, "{}", refused.text());
            let error: Value = refused.json();
            let message = error["error"]["message"].as_str().expect("a message");
            assert!(message.contains(part), "{message}");
        }
    }
    let unknown = json!({"model": "nope", "input": "a"}).to_string();
    assert_eq!(here.post("/v1/embeddings", &unknown).await.status, 404);
}
