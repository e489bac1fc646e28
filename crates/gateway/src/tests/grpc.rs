use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use protocol::oip::proto::health::{HealthCheckRequest, HealthCheckResponse};
use protocol::oip::proto::model_infer_request::InferInputTensor;
use protocol::oip::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse,
};
use tokio::net::TcpStream;

use super::{Served, beside, eventually, within};

pub(super) struct Channel(pub(super) SendRequest<Full<Bytes>>);

pub(super) struct Called {
    pub(super) head: HeaderMap,
    pub(super) message: Option<Bytes>,
    /// All messages, in their envelopes.
    pub(super) data: Bytes,
    /// Of the trailers, or of the head when there is nothing else.
    pub(super) status: String,
    pub(super) text: String,
}

impl Channel {
    pub(super) async fn open(served: &Served, addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("somebody listens");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("h2 without an upgrade");
        beside(&served.tasks, async move {
            let _ended = connection.await;
        });
        Self(sender)
    }

    pub(super) fn request(path: &str, extra: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).expect("a request")
    }

    pub(super) async fn raw(&mut self, path: &str, extra: &[(&str, &str)], body: Bytes) -> Called {
        let answer = self.0.send_request(Self::request(path, extra, body));
        let answer = within("an answer", answer).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let (head, body) = answer.into_parts();
        let collected = body.collect().await.expect("a body");
        let trailers = collected.trailers().cloned();
        let data = collected.to_bytes();
        let status_of = trailers.as_ref().unwrap_or(&head.headers);
        let text = |name: &str| {
            let value = status_of
                .get(name)
                .map(|value| value.to_str().expect("ASCII"));
            value.unwrap_or_default().to_owned()
        };
        Called {
            status: text("grpc-status"),
            text: text("grpc-message"),
            message: (!data.is_empty()).then(|| data.slice(5..)),
            data,
            head: head.headers,
        }
    }

    pub(super) async fn call(&mut self, method: &str, message: &impl Message) -> Called {
        let path = format!("/inference.GRPCInferenceService/{method}");
        self.raw(&path, &[], envelope(message)).await
    }

    async fn answer<M: Message + Default>(&mut self, method: &str, message: &impl Message) -> M {
        let called = self.call(method, message).await;
        assert_eq!(called.status, "0", "{method}: {}", called.text);
        M::decode(called.message.expect("a message")).expect("the right message")
    }
}

pub(super) fn envelope(message: &impl Message) -> Bytes {
    use bytes::BufMut;
    let encoded = message.encode_to_vec();
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(encoded.len()).expect("a small message"));
    body.extend_from_slice(&encoded);
    body.freeze()
}

pub(super) fn infer(model: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        id: "7".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![2],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::from_static(&[0, 0, 192, 63, 0, 0, 0, 192])],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn every_unary_call_answers_on_the_same_port() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let live: ServerLiveResponse = channel.answer("ServerLive", &ServerLiveRequest {}).await;
    assert!(live.live);
    let ready: ServerReadyResponse = channel.answer("ServerReady", &ServerReadyRequest {}).await;
    assert!(!ready.ready);
    let server: ServerMetadataResponse = channel
        .answer("ServerMetadata", &ServerMetadataRequest {})
        .await;
    assert_eq!(server.version, "0.0.0-test");
    let index: RepositoryIndexResponse = channel
        .answer("RepositoryIndex", &RepositoryIndexRequest::default())
        .await;
    assert_eq!(index.models.len(), 6);
    let named = ModelMetadataRequest {
        name: "echo".to_owned(),
        version: String::new(),
    };
    let metadata: ModelMetadataResponse = channel.answer("ModelMetadata", &named).await;
    assert_eq!(metadata.platform, "fake");
    for method in ["ModelReady", "ModelConfig", "ModelStatistics"] {
        // The three requests have the same two fields.
        assert_eq!(channel.call(method, &named).await.status, "0", "{method}");
    }
    for (model, expected) in [("echo", true), ("loading", false), ("nope", false)] {
        let named = ModelReadyRequest {
            name: model.to_owned(),
            version: String::new(),
        };
        let answer: ModelReadyResponse = channel.answer("ModelReady", &named).await;
        assert_eq!(answer.ready, expected, "{model}");
    }
    let answer: ModelInferResponse = channel.answer("ModelInfer", &infer("echo")).await;
    assert_eq!(answer.id, "7");
    assert_eq!(
        answer.raw_output_contents[0],
        infer("echo").raw_input_contents[0]
    );

    let health = HealthCheckRequest::default();
    let called = channel
        .raw("/grpc.health.v1.Health/Check", &[], envelope(&health))
        .await;
    let answer = HealthCheckResponse::decode(called.message.expect("a message")).expect("health");
    assert_eq!(answer.status, 2, "NOT_SERVING while a model loads");
}

#[tokio::test]
async fn answers_carry_the_ledger_and_the_id() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let called = channel
        .raw(path, &[("x-request-id", "g-1")], envelope(&infer("echo")))
        .await;
    assert_eq!(called.head["x-request-id"], "g-1");
    let timing = called.head["server-timing"].to_str().expect("ASCII");
    assert!(timing.contains("infer;dur="), "{timing}");
    let record = served.settled("g-1").await;
    assert_eq!((record.operation, record.complete), ("grpc infer", true));
    let sum: f64 = record.stages.iter().map(|stage| stage.ms).sum();
    assert!((sum - record.total_ms).abs() < 1e-6, "{record:?}");
}

#[tokio::test]
async fn refusals_have_grpcs_shape() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let infer_path = "/inference.GRPCInferenceService/ModelInfer";
    for (path, body, status, part) in [
        (
            "/other.Service/Call",
            Bytes::new(),
            "12",
            "other.Service/Call",
        ),
        (infer_path, Bytes::new(), "3", "no message"),
        (
            infer_path,
            Bytes::from_static(&[1, 0, 0, 0, 0]),
            "3",
            "grpc-encoding does not say how",
        ),
        (
            infer_path,
            Bytes::from_static(&[0, 0, 0, 0, 9, 1]),
            "3",
            "middle",
        ),
        (
            infer_path,
            Bytes::from_static(&[0, 0, 0, 0, 1, 255]),
            "3",
            "malformed",
        ),
        (
            infer_path,
            Bytes::from_static(&[0, 127, 0, 0, 0]),
            "8",
            "larger than",
        ),
        (
            infer_path,
            envelope(&infer("nobody")),
            "5",
            "unknown model: 'nobody'",
        ),
        (infer_path, envelope(&infer("loading")), "14", "loading"),
    ] {
        let called = channel.raw(path, &[], body).await;
        assert_eq!(called.status, status, "{path}: {}", called.text);
        assert!(
            called.text.contains(part),
            "{} should say {part}",
            called.text
        );
        assert!(called.message.is_none());
        assert_eq!(
            called.head["grpc-accept-encoding"],
            "identity, deflate, gzip"
        );
    }
    let called = channel
        .raw(
            infer_path,
            &[("grpc-timeout", "20m")],
            envelope(&infer("slow")),
        )
        .await;
    assert_eq!(called.status, "4", "{}", called.text);
}

#[tokio::test]
async fn a_cancelled_call_frees_the_lane() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let request = Channel::request(path, &[], envelope(&infer("slow")));
    let answer = channel.0.send_request(request);
    let count = |counter: &std::sync::atomic::AtomicUsize| {
        counter.load(std::sync::atomic::Ordering::SeqCst)
    };
    let waiting = eventually("the model is asked", || count(&served.models.asked) == 1);
    // Both are polled; the answer never comes.
    tokio::select! {
        _ = answer => panic!("slow does not answer"),
        () = waiting => {}
    }
    // Leaving the select has dropped the call: the stream is reset, the connection stays.
    eventually("the call is dropped", || count(&served.models.dropped) == 1).await;
    let live: ServerLiveResponse = channel.answer("ServerLive", &ServerLiveRequest {}).await;
    assert!(live.live);
}

#[tokio::test]
async fn grpc_over_http_1_is_refused() {
    let served = Served::start(&[]);
    let got = served
        .ask(
            "POST",
            "/inference.GRPCInferenceService/ServerLive",
            "content-type: application/grpc\r\n",
            b"",
        )
        .await;
    assert_eq!(got.header("grpc-status"), Some("3"));
    assert!(
        got.header("grpc-message")
            .is_some_and(|text| text.contains("HTTP/2"))
    );
}
