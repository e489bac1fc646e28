//! A gateway before another one: what the client gets is what it would get from the other one itself.

use std::io::Write as _;
use std::sync::atomic::Ordering;

use bytes::{BufMut as _, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use protocol::oip::proto::ModelReadyRequest;
use serde_json::json;

use super::grpc::{Channel, envelope, infer};
use super::stream::{STREAM, answers, numbered, stream, told};
use super::{Served, eventually, within};
use crate::snapshot::tests::{route, upstream};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The gateway with the models, and the one before it.
fn pair() -> (Served, Served) {
    let back = Served::start(&[]);
    let url = format!("http://{}", back.public);
    let front = Served::start(&[
        upstream("back", json!({"url": url, "kind": "kapok"})),
        route("all", &["*"], &[("back", 1)]),
    ]);
    (back, front)
}

#[tokio::test]
async fn unary_calls_are_answered_as_from_the_models_own_server() {
    let (back, front) = pair();
    let mut direct = Channel::open(&back, back.public).await;
    let mut through = Channel::open(&front, front.public).await;
    let named = |name: &str| ModelReadyRequest {
        name: name.to_owned(),
        version: String::new(),
    };
    // The requests about a model have the same two fields.
    for method in [
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelStatistics",
    ] {
        for model in ["echo", "loading", "nope"] {
            let expected = direct.call(method, &named(model)).await;
            let found = through.call(method, &named(model)).await;
            assert_eq!(found.data, expected.data, "{method} {model}");
            assert_eq!(found.status, expected.status, "{method} {model}");
            assert_eq!(found.text, expected.text, "{method} {model}");
        }
    }
    for model in ["echo", "loading", "nope"] {
        let expected = direct.call("ModelInfer", &infer(model)).await;
        let found = through.call("ModelInfer", &infer(model)).await;
        assert_eq!((found.data, found.status), (expected.data, expected.status));
    }
    assert_eq!(front.models.asked.load(Ordering::SeqCst), 0, "asked here");
}

#[tokio::test]
async fn a_relayed_call_is_remembered_with_its_outcome() {
    let (_back, front) = pair();
    let mut through = Channel::open(&front, front.public).await;
    for (id, model, status) in [("g-1", "echo", 200), ("g-2", "nope", 404)] {
        let id_header = [("x-request-id", id)];
        let called = through
            .raw(INFER, &id_header, envelope(&infer(model)))
            .await;
        assert_eq!(called.head["x-request-id"], id);
        let record = front.settled(id).await;
        assert_eq!((record.status, record.complete), (status, true), "{model}");
        assert_eq!((&*record.target, record.model.as_str()), ("back", model));
    }
}

#[tokio::test]
async fn a_packed_message_is_passed_on_packed() {
    let (back, front) = pair();
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer
        .write_all(&infer("echo").encode_to_vec())
        .expect("in memory");
    let packed = packer.finish().expect("in memory");
    let mut body = BytesMut::new();
    body.put_u8(1);
    body.put_u32(u32::try_from(packed.len()).expect("short"));
    body.extend_from_slice(&packed);
    let coding = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")];
    let mut through = Channel::open(&front, front.public).await;
    let called = through.raw(INFER, &coding, body.freeze()).await;
    assert_eq!((called.status.as_str(), &called.data[..1]), ("0", &[1][..]));
    assert_eq!(called.head["grpc-encoding"], "gzip");
    assert_eq!(back.models.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_goes_to_its_first_requests_model() {
    let (back, front) = pair();
    let requests: Vec<_> = (0..300)
        .map(|id| numbered("echo", &id.to_string(), &[0.5]))
        .collect();
    let direct = stream(&back, &[], &requests).await;
    let through = stream(&front, &[], &requests).await;
    assert_eq!(through.data, direct.data);
    assert_eq!(through.status, "0", "{}", through.text);

    let decoupled = [numbered("repeat", "a", &[1.0, 2.0, -1.0])];
    let direct = stream(&back, &[], &decoupled).await;
    let through = stream(&front, &[], &decoupled).await;
    assert_eq!((through.data, through.status), (direct.data, direct.status));

    let unknown = stream(&front, &[], &[numbered("nope", "a", &[1.0])]).await;
    let told = told(&answers(&unknown));
    assert!(told[0].2.contains("nope"), "{told:?}");
}

#[tokio::test]
async fn a_relayed_stream_is_for_one_model() {
    let (_back, front) = pair();
    let requests = [
        numbered("echo", "a", &[1.0]),
        numbered("repeat", "b", &[1.0]),
    ];
    let called = stream(&front, &[], &requests).await;
    assert_eq!(called.status, "3");
    assert!(called.text.contains("for model `echo`"), "{}", called.text);
    let empty = stream(&front, &[], &[]).await;
    assert_eq!(empty.status, "0", "{}", empty.text);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_lane_over_there() {
    let (back, front) = pair();
    let mut channel = Channel::open(&front, front.public).await;
    for (path, gone) in [(INFER, 1), (STREAM, 2)] {
        let request = Channel::request(path, &[], envelope(&infer("slow")));
        let answer = channel.0.send_request(request);
        let asked = || back.models.asked.load(Ordering::SeqCst) == gone;
        let answering = async move {
            let (_head, body) = answer.await.expect("a head").into_parts();
            http_body_util::BodyExt::collect(body).await
        };
        tokio::select! {
            _ = answering => panic!("slow does not answer"),
            () = eventually("the model is asked", asked) => {}
        }
        let dropped = || back.models.dropped.load(Ordering::SeqCst) == gone;
        eventually("the call is dropped", dropped).await;
    }
}

#[tokio::test]
async fn a_call_that_is_cut_has_a_status_of_its_own() {
    let (back, front) = pair();
    let mut channel = Channel::open(&front, front.public).await;
    let answering = channel.raw(INFER, &[], envelope(&infer("slow")));
    let stopping = async {
        let asked = || back.models.asked.load(Ordering::SeqCst) == 1;
        eventually("the model is asked", asked).await;
        back.tasks.drain(std::time::Duration::ZERO).await;
    };
    let (called, ()) = within("an answer", async { tokio::join!(answering, stopping) }).await;
    assert_eq!(called.status, "14", "{}", called.text);
    assert!(called.text.contains("upstream `back`"), "{}", called.text);
}

#[tokio::test]
async fn a_key_for_one_model_reaches_no_other_through_a_stream() {
    let back = Served::start(&[]);
    let url = format!("http://{}", back.public);
    let key: protocol::resource::KeySpec = serde_json::from_value(json!({
        // Of `secret`.
        "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        "models": ["echo"],
    }))
    .expect("a key");
    let front = Served::start(&[
        upstream("back", json!({"url": url, "kind": "kapok"})),
        route("all", &["*"], &[("back", 1)]),
        crate::snapshot::tests::resource("k", protocol::resource::Spec::Key(key)),
    ]);
    let bearer = [("authorization", "Bearer secret")];
    let allowed = stream(&front, &bearer, &[numbered("echo", "a", &[1.0])]).await;
    assert_eq!(allowed.status, "0", "{}", allowed.text);
    let other = [
        numbered("echo", "a", &[1.0]),
        numbered("repeat", "b", &[1.0]),
    ];
    let refused = stream(&front, &bearer, &other).await;
    assert_eq!(refused.status, "3", "{}", refused.text);
    let first = stream(&front, &bearer, &[numbered("repeat", "b", &[1.0])]).await;
    let told = told(&answers(&first));
    assert!(told[0].2.contains("may not use"), "{told:?}");
    let mut channel = Channel::open(&front, front.public).await;
    let called = channel
        .raw(INFER, &bearer, envelope(&infer("repeat")))
        .await;
    assert_eq!(called.status, "7", "{}", called.text);
}
