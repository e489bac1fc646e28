//! Many requests on one stream, and generate: answers as they come.

use std::io::Write as _;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message as _;
use protocol::oip::proto::infer_parameter::ParameterChoice;
use protocol::oip::proto::{InferParameter, ModelInferRequest, ModelStreamInferResponse};
use serde_json::json;

use super::grpc::{Called, Channel, envelope, infer};
use super::{Served, eventually};
use crate::regions::tests::Object;

pub(super) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

pub(super) fn numbered(model: &str, id: &str, elements: &[f32]) -> ModelInferRequest {
    let mut request = infer(model);
    request.id = id.to_owned();
    request.inputs[0].shape = vec![i64::try_from(elements.len()).expect("few")];
    let data: Vec<u8> = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
    request.raw_input_contents = vec![data.into()];
    request
}

pub(super) fn answers(called: &Called) -> Vec<ModelStreamInferResponse> {
    let mut data = called.data.clone();
    let mut found = Vec::new();
    while data.has_remaining() {
        assert_eq!(data.get_u8(), 0);
        let bytes = data.get_u32() as usize;
        let message = data.split_to(bytes);
        found.push(ModelStreamInferResponse::decode(message).expect("a message"));
    }
    found
}

/// Id, whether it is said to be the last, and the error.
pub(super) fn told(answers: &[ModelStreamInferResponse]) -> Vec<(String, bool, String)> {
    let last = Some(ParameterChoice::BoolParam(true));
    let tell = |answer: &ModelStreamInferResponse| {
        let response = answer.infer_response.as_ref().expect("always there");
        let said = response.parameters.get("triton_final_response");
        let said = said.is_some_and(|value| value.parameter_choice == last);
        (response.id.clone(), said, answer.error_message.clone())
    };
    answers.iter().map(tell).collect()
}

pub(super) async fn stream(
    served: &Served,
    extra: &[(&str, &str)],
    requests: &[ModelInferRequest],
) -> Called {
    let mut channel = Channel::open(served, served.public).await;
    let body: Vec<Bytes> = requests.iter().map(envelope).collect();
    channel.raw(STREAM, extra, body.concat().into()).await
}

#[tokio::test]
async fn each_request_of_a_stream_is_answered_in_order() {
    let served = Served::start(&[]);
    let requests: Vec<_> = (0..300)
        .map(|id| numbered("echo", &id.to_string(), &[0.5]))
        .collect();
    let called = stream(&served, &[], &requests).await;
    assert_eq!(called.status, "0", "{}", called.text);
    let expected: Vec<_> = (0..300)
        .map(|id| (id.to_string(), true, String::new()))
        .collect();
    assert_eq!(told(&answers(&called)), expected);
}

#[tokio::test]
async fn a_decoupled_model_answers_as_often_as_it_likes() {
    let served = Served::start(&[]);
    let mut asking = numbered("repeat", "a", &[1.0, 2.0]);
    let plain = numbered("repeat", "b", &[3.0]);
    let value = InferParameter {
        parameter_choice: Some(ParameterChoice::BoolParam(true)),
    };
    let key = "triton_enable_empty_final_response";
    asking.parameters.insert(key.to_owned(), value);
    let called = stream(&served, &[], &[asking]).await;
    let said = |id: &str, last| (id.to_owned(), last, String::new());
    let found = answers(&called);
    assert_eq!(
        told(&found),
        [said("a", false), said("a", false), said("a", true)]
    );
    let end = found[2].infer_response.as_ref().expect("always there");
    assert_eq!((end.outputs.len(), end.model_version.as_str()), (0, "1"));
    let called = stream(&served, &[], &[plain]).await;
    assert_eq!(told(&answers(&called)), [said("b", false)]);
}

/// A model loaded on first use says only then that it is decoupled: its answers need not wait for another model's.
#[tokio::test]
async fn a_sleeping_decoupled_model_answers_as_it_likes_from_its_first_request_on() {
    let served = Served::start(&[]);
    let requests = [
        numbered("patient", "a", &[1.0]),
        numbered("dozing", "b", &[1.0, 2.0]),
    ];
    let called = stream(&served, &[], &requests).await;
    let mut ids: Vec<String> = told(&answers(&called))
        .into_iter()
        .map(|(id, ..)| id)
        .collect();
    assert_eq!(ids.first().map(String::as_str), Some("b"));
    ids.sort();
    assert_eq!(ids, ["a", "b", "b"]);
}

#[tokio::test]
async fn a_large_input_in_shared_memory_keeps_its_place_in_the_order() {
    const FLOATS: usize = 1 << 18;
    let served = Served::start(&[]);
    let object = Object::new("stream-order", &vec![0; 4 * FLOATS]);
    let path = "/v2/systemsharedmemory/region/in/register";
    let body = json!({"key": object.key(), "offset": 0, "byte_size": 4 * FLOATS});
    assert_eq!(served.post(path, &body.to_string()).await.status, 200);
    let request = |index: usize| {
        let mut request = numbered("echo", &index.to_string(), &[0.5]);
        if index.is_multiple_of(2) {
            let input = &mut request.inputs[0];
            input.shape = vec![FLOATS as i64];
            let region = ParameterChoice::StringParam("in".to_owned());
            let bytes = ParameterChoice::Int64Param(4 * FLOATS as i64);
            for (name, value) in [
                ("shared_memory_region", region),
                ("shared_memory_byte_size", bytes),
            ] {
                let parameter_choice = Some(value);
                input
                    .parameters
                    .insert(name.to_owned(), InferParameter { parameter_choice });
            }
            request.raw_input_contents.clear();
        }
        request
    };
    let requests: Vec<_> = (0..8).map(request).collect();
    let called = stream(&served, &[], &requests).await;
    assert_eq!(called.status, "0", "{}", called.text);
    let expected: Vec<String> = (0..8).map(|index| index.to_string()).collect();
    assert_eq!(*served.models.order.lock(), expected);
}

#[tokio::test]
async fn an_error_is_about_one_request_unless_the_client_wants_a_status() {
    let served = Served::start(&[]);
    let requests = [
        numbered("nobody", "1", &[1.0]),
        numbered("repeat", "2", &[-1.0]),
        numbered("broken", "3", &[1.0]),
        numbered("echo", "4", &[1.0]),
    ];
    let called = stream(&served, &[], &requests).await;
    assert_eq!(called.status, "0", "{}", called.text);
    let found = told(&answers(&called));
    let about = |id: &str| {
        let mut found = found.iter();
        found
            .find(|(have, ..)| have == id)
            .map(|(.., error)| error.as_str())
    };
    assert_eq!(
        about("1"),
        Some("Request for unknown model: 'nobody' is not found")
    );
    assert_eq!(about("2"), Some("a negative element"));
    assert_eq!(about("4"), Some(""));
    assert_eq!(found.len(), 4);
    let called = stream(&served, &[("triton_grpc_error", "true")], &requests).await;
    assert_eq!(called.status, "5", "{}", called.text);
}

#[tokio::test]
async fn a_stream_that_is_cut_off_frees_the_lane() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let asked = || {
        served
            .models
            .asked
            .load(std::sync::atomic::Ordering::SeqCst)
            == 1
    };
    let dropped = || {
        served
            .models
            .dropped
            .load(std::sync::atomic::Ordering::SeqCst)
            == 1
    };
    let call = channel.raw(STREAM, &[], envelope(&infer("slow")));
    tokio::select! {
        _ = call => panic!("slow does not answer"),
        () = eventually("the model is asked", asked) => {}
    }
    eventually("the call is dropped", dropped).await;
}

#[tokio::test]
async fn packed_messages_are_unpacked_within_the_limit() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let level = Compression::default();
    let gzip = |data: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), level);
        encoder.write_all(data).expect("memory");
        encoder.finish().expect("memory")
    };
    let deflate = |data: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(data).expect("memory");
        encoder.finish().expect("memory")
    };
    let wrap = |packed: Vec<u8>| {
        let mut body = BytesMut::new();
        body.put_u8(1);
        body.put_u32(u32::try_from(packed.len()).expect("small"));
        body.extend_from_slice(&packed);
        body.freeze()
    };
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let message = infer("echo").encode_to_vec();
    for (coding, body, status) in [
        ("gzip", wrap(gzip(&message)), "0"),
        ("deflate", wrap(deflate(&message)), "0"),
        ("gzip", envelope(&infer("echo")), "0"),
        ("gzip", wrap(message.clone()), "3"),
        ("br", wrap(message), "12"),
        ("gzip", wrap(gzip(&vec![0; 2 << 20])), "8"),
    ] {
        let called = channel.raw(path, &[("grpc-encoding", coding)], body).await;
        assert_eq!(called.status, status, "{coding}: {}", called.text);
    }
}

#[tokio::test]
async fn generate_answers_once_and_its_stream_as_often_as_the_model() {
    let served = Served::start(&[]);
    let body = json!({"x": [1.5, 2.0], "id": "7", "max_tokens": 3}).to_string();
    let got = served.post("/v2/models/echo/generate", &body).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(
        got.json(),
        json!({"model_name": "echo", "model_version": "1", "id": "7", "x": [1.5, 2.0]})
    );
    let path = "/v2/models/repeat/versions/1/generate_stream";
    let got = served.post(path, &body).await;
    assert_eq!(
        got.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert!(got.whole);
    let event = |x: &str| {
        format!(
            "data: {{\"model_name\":\"repeat\",\"model_version\":\"1\",\"id\":\"7\",\"x\":{x}}}\n\n"
        )
    };
    assert_eq!(got.text(), format!("{}{}", event("1.5"), event("2.0")));
    let failing = json!({"x": [1.5, -2.0], "id": "7"}).to_string();
    let got = served.post(path, &failing).await;
    assert_eq!((got.status, got.whole), (200, true));
    assert_eq!(
        got.text(),
        format!(
            "{}data: {{\"error\":\"a negative element\"}}\n\n",
            event("1.5")
        )
    );
    let record = served.settled(got.request_id()).await;
    assert_eq!(record.error.as_deref(), Some("a negative element"));
    for (path, body, status, part) in [
        (
            "/v2/models/repeat/generate",
            body.as_str(),
            400,
            "generate expects model to produce exactly 1 response",
        ),
        (
            "/v2/models/repeat/generate_stream",
            r#"{"x": [-1]}"#,
            400,
            "a negative element",
        ),
        (
            "/v2/models/echo/generate",
            r#"{"y": [1]}"#,
            400,
            "parameter 'y' has invalid type: it is no input",
        ),
        ("/v2/models/nobody/generate", "{}", 404, "unknown model"),
    ] {
        let got = served.post(path, body).await;
        assert_eq!(got.status, status, "{path}: {}", got.text());
        assert!(got.text().contains(part), "{path}: {}", got.text());
    }
    assert_eq!(served.get("/v2/models/echo/generate").await.status, 405);
}

#[tokio::test]
async fn a_reader_who_leaves_ends_the_generation() {
    let served = Served::start(&[]);
    let mut client = served.client().await;
    client
        .send(
            "POST",
            "/v2/models/slow/generate_stream",
            "",
            b"{\"x\": [1]}",
        )
        .await;
    let count = |counter: &std::sync::atomic::AtomicUsize| {
        counter.load(std::sync::atomic::Ordering::SeqCst)
    };
    eventually("the model is asked", || count(&served.models.asked) == 1).await;
    drop(client);
    eventually("the call is dropped", || count(&served.models.dropped) == 1).await;
}
