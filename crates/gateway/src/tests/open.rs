//! Calls that stay open: reflection, the health watch, and what becomes of them when the node stops.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use protocol::oip::proto::health::{HealthCheckRequest, HealthCheckResponse};
use protocol::oip::proto::reflection::server_reflection_request::MessageRequest;
use protocol::oip::proto::reflection::server_reflection_response::MessageResponse;
use protocol::oip::proto::reflection::{ServerReflectionRequest, ServerReflectionResponse};
use protocol::oip::proto::{ModelInferResponse, ModelStreamInferResponse};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::grpc::{Channel, envelope, infer};
use super::{Served, beside, within};
use crate::Config;

struct Requests(mpsc::Receiver<Bytes>);

impl Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(cx);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A call whose client has more to say.
struct Open {
    requests: Option<mpsc::Sender<Bytes>>,
    answers: hyper::body::Incoming,
    ahead: BytesMut,
    id: String,
}

impl Open {
    async fn start(served: &Served, path: &str) -> Self {
        let stream = TcpStream::connect(served.public).await.expect("open");
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("h2");
        beside(&served.tasks, async move {
            let _ended = connection.await;
        });
        let (requests, waiting) = mpsc::channel(8);
        let request = http::Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Requests(waiting))
            .expect("a request");
        let answer = within("a head", sender.send_request(request))
            .await
            .expect("a head");
        let id = answer.headers()["x-request-id"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        Self {
            requests: Some(requests),
            answers: answer.into_body(),
            ahead: BytesMut::new(),
            id,
        }
    }

    async fn send(&self, message: &impl Message) {
        let requests = self.requests.as_ref().expect("not ended");
        requests.send(envelope(message)).await.expect("open");
    }

    async fn next<M: Message + Default>(&mut self) -> M {
        loop {
            if self.ahead.len() >= 5 {
                let bytes = u32::from_be_bytes(self.ahead[1..5].try_into().expect("four"));
                let end = 5 + bytes as usize;
                if self.ahead.len() >= end {
                    let message = self.ahead.split_to(end).freeze().slice(5..);
                    return M::decode(message).expect("the right message");
                }
            }
            let frame = within("a frame", self.answers.frame()).await;
            let frame = frame.expect("not the end").expect("not cut");
            self.ahead.put(frame.into_data().expect("data"));
        }
    }

    async fn status(&mut self) -> String {
        let frame = within("trailers", self.answers.frame()).await;
        let frame = frame.expect("not the end").expect("not cut");
        let trailers = frame.into_trailers().expect("trailers");
        trailers["grpc-status"].to_str().expect("ASCII").to_owned()
    }
}

const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

#[tokio::test]
async fn reflection_answers_each_question_before_the_next() {
    let served = Served::start(&[]);
    for path in REFLECTION {
        let mut call = Open::start(&served, path).await;
        let symbol = "inference.GRPCInferenceService.ModelInfer".to_owned();
        for (asked, files) in [
            (MessageRequest::ListServices(String::new()), None),
            (MessageRequest::FileContainingSymbol(symbol), Some(2)),
        ] {
            call.send(&ServerReflectionRequest {
                host: String::new(),
                message_request: Some(asked),
            })
            .await;
            let answer: ServerReflectionResponse = call.next().await;
            match answer.message_response.expect("always an answer") {
                MessageResponse::ListServicesResponse(list) => assert_eq!(list.service.len(), 4),
                MessageResponse::FileDescriptorResponse(found) => {
                    assert_eq!(Some(found.file_descriptor_proto.len()), files);
                }
                other => panic!("{other:?}"),
            }
        }
        call.requests = None;
        assert_eq!(call.status().await, "0");
        let record = served.settled(&call.id).await;
        assert_eq!(
            (record.operation, record.complete),
            ("grpc reflection", true)
        );
    }
}

#[tokio::test]
async fn a_watcher_is_told_of_the_end() {
    let config = Config {
        strict_readiness: false,
        ..Config::default()
    };
    let served = Served::with(config, &[]);
    let watch = async |service: &str| {
        let call = Open::start(&served, WATCH).await;
        let service = service.to_owned();
        call.send(&HealthCheckRequest { service }).await;
        call
    };
    let mut unknown = watch("nope.Service").await;
    let told: HealthCheckResponse = unknown.next().await;
    assert_eq!(told.status, SERVICE_UNKNOWN);
    let mut known = watch("inference.GRPCInferenceService").await;
    let told: HealthCheckResponse = known.next().await;
    assert_eq!(told.status, 1, "SERVING");
    let (all_done, ()) = tokio::join!(served.drain(), async {
        let told: HealthCheckResponse = known.next().await;
        assert_eq!(told.status, NOT_SERVING);
        assert_eq!(known.status().await, "14");
        assert_eq!(unknown.status().await, "14");
    });
    assert!(all_done);
}

#[tokio::test]
async fn health_is_asked_for_a_service_by_name() {
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    for (service, status) in [
        ("", "0"),
        ("inference.GRPCInferenceService", "0"),
        ("grpc.reflection.v1.ServerReflection", "0"),
        ("nope.Service", "5"),
    ] {
        let service = service.to_owned();
        let asked = envelope(&HealthCheckRequest {
            service: service.clone(),
        });
        let called = channel
            .raw("/grpc.health.v1.Health/Check", &[], asked)
            .await;
        assert_eq!(called.status, status, "{service}: {}", called.text);
    }
}

#[tokio::test]
async fn a_stream_that_waits_does_not_hold_up_the_end() {
    let served = Served::start(&[]);
    let mut call = Open::start(&served, STREAM).await;
    call.send(&infer("echo")).await;
    let answer: ModelStreamInferResponse = call.next().await;
    assert_eq!(answer.error_message, "");
    let (all_done, ()) = tokio::join!(served.drain(), async {
        assert_eq!(call.status().await, "14");
    });
    assert!(all_done);
    let record = served.settled(&call.id).await;
    assert_eq!(
        (record.model.as_str(), record.operation),
        ("echo", "grpc stream.infer")
    );
    assert!(
        record
            .error
            .as_deref()
            .is_some_and(|error| error.contains("stopping"))
    );
}

fn gzip(message: &impl Message) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&message.encode_to_vec()).expect("memory");
    let packed = encoder.finish().expect("memory");
    let mut body = BytesMut::new();
    body.put_u8(1);
    body.put_u32(u32::try_from(packed.len()).expect("small"));
    body.extend_from_slice(&packed);
    body.freeze()
}

#[tokio::test]
async fn an_answer_is_packed_as_its_request_was() {
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
    let served = Served::start(&[]);
    let mut channel = Channel::open(&served, served.public).await;
    let sent = ("grpc-encoding", "gzip");
    for (path, headers, packed) in [
        (INFER, &[sent][..], true),
        (
            INFER,
            &[sent, ("grpc-accept-encoding", "identity, deflate, gzip")],
            true,
        ),
        (
            INFER,
            &[sent, ("grpc-accept-encoding", "identity, deflate")],
            false,
        ),
        (INFER, &[("grpc-accept-encoding", "gzip")], false),
        (STREAM, &[sent], true),
    ] {
        let plain = headers.iter().all(|(name, _)| *name != sent.0);
        let body = if plain {
            envelope(&infer("echo"))
        } else {
            gzip(&infer("echo"))
        };
        let called = channel.raw(path, headers, body).await;
        assert_eq!(called.status, "0", "{headers:?}: {}", called.text);
        assert_eq!(
            called.head["grpc-encoding"],
            if packed { "gzip" } else { "identity" }
        );
        let mut data = called.data.clone();
        assert_eq!(data.get_u8(), u8::from(packed), "{headers:?}");
        assert_eq!(data.get_u32() as usize, data.remaining(), "{headers:?}");
        let mut message = data.to_vec();
        if packed {
            message.clear();
            let mut decoder = GzDecoder::new(&data[..]);
            decoder.read_to_end(&mut message).expect("gzip");
        }
        let answer = if path == INFER {
            ModelInferResponse::decode(&message[..]).expect("an answer")
        } else {
            let answer = ModelStreamInferResponse::decode(&message[..]).expect("an answer");
            answer.infer_response.expect("always there")
        };
        assert_eq!(answer.raw_output_contents, infer("echo").raw_input_contents);
    }
}
