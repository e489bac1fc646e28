//! Upstreams that speak HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::Tasks;
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::client::Client;
use super::grpc::{Channel, infer};
use super::{Served, beside, eventually, within};
use crate::snapshot::tests::upstream;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// `echo ` and the body.
    Echo,
    /// As echo, once the test lets it.
    EchoLater,
    /// `REFUSED_STREAM`.
    Refuse,
    /// Half an answer, then a reset.
    Cut,
}

/// Takes streams, counts them, and does the deeds in order; the last again and again.
struct Peer {
    url: String,
    heads: Mutex<Vec<Request<()>>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    reset: AtomicUsize,
    go: Semaphore,
    deeds: Vec<Deed>,
}

impl Peer {
    async fn start(tasks: &Tasks, deeds: Vec<Deed>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            heads: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            reset: AtomicUsize::new(0),
            go: Semaphore::new(0),
            deeds,
        });
        let (accepting, spawning) = (Arc::clone(&peer), tasks.clone());
        beside(tasks, async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (peer, tasks) = (Arc::clone(&accepting), spawning.clone());
                beside(&spawning, async move { peer.serve(socket, tasks).await });
            }
        });
        peer
    }

    async fn serve(self: Arc<Self>, socket: tokio::net::TcpStream, tasks: Tasks) {
        let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
        while let Some(Ok((request, answer))) = connection.accept().await {
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_open.fetch_max(open, Ordering::SeqCst);
            let peer = Arc::clone(&self);
            beside(&tasks, async move {
                peer.answer(request, answer).await;
                peer.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    async fn answer(
        &self,
        request: Request<h2::RecvStream>,
        mut answer: h2::server::SendResponse<Bytes>,
    ) {
        let (head, mut body) = request.into_parts();
        let number = {
            let mut heads = self.heads.lock();
            heads.push(Request::from_parts(head, ()));
            heads.len() - 1
        };
        let deed = self.deeds[number.min(self.deeds.len() - 1)];
        if deed == Deed::Refuse {
            answer.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let mut whole = b"echo ".to_vec();
        while let Some(data) = body.data().await {
            let Ok(data) = data else {
                self.reset.fetch_add(1, Ordering::SeqCst);
                return;
            };
            let _known = body.flow_control().release_capacity(data.len());
            whole.extend_from_slice(&data);
        }
        if deed == Deed::EchoLater {
            let gone = std::future::poll_fn(|cx| answer.poll_reset(cx));
            tokio::select! {
                permit = self.go.acquire() => permit.expect("open").forget(),
                _reset = gone => {
                    self.reset.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
        let head = Response::builder().header("x-peer", "h2");
        let mut stream = answer
            .send_response(head.body(()).expect("a head"), false)
            .expect("an open stream");
        if deed == Deed::Cut {
            let _sent = stream.send_data(Bytes::from_static(b"half"), false);
            self.go.acquire().await.expect("open").forget();
            stream.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
        let _sent = stream.send_data(whole.into(), false);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().expect("a value"));
        let _sent = stream.send_trailers(trailers);
    }
}

const BODY: &str = r#"{"model":"m"}"#;

fn served(peer: &Peer) -> Served {
    let fields = serde_json::json!({"url": peer.url, "http2": true, "http2StreamsMax": 4});
    Served::start(&[upstream("u", fields)])
}

#[tokio::test]
async fn a_request_goes_over_http2_without_a_word_of_http1() {
    let tasks = Tasks::new();
    let peer = Peer::start(&tasks, vec![Deed::Echo]).await;
    let served = served(&peer);
    for _ in 0..3 {
        let answer = served.post("/v1/chat/completions", BODY).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "echo {\"model\":\"m\"}")
        );
        assert_eq!(answer.header("x-peer"), Some("h2"));
        assert!(answer.whole);
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1, "one is enough");
    let heads = peer.heads.lock();
    let head = heads.first().expect("three requests");
    assert_eq!(head.uri().path(), "/v1/chat/completions");
    assert!(head.uri().authority().is_some());
    for gone in ["host", "connection", "transfer-encoding"] {
        assert!(!head.headers().contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn requests_share_connections_up_to_the_cap() {
    let tasks = Tasks::new();
    let peer = Peer::start(&tasks, vec![Deed::EchoLater]).await;
    let served = served(&peer);
    let mut clients = Vec::new();
    for number in 1..=10 {
        let mut client = served.client().await;
        client
            .send("POST", "/v1/completions", "", BODY.as_bytes())
            .await;
        clients.push(client);
        let arrived = || peer.open.load(Ordering::SeqCst) == number;
        eventually("the request is at the peer", arrived).await;
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 3, "4 + 4 + 2");
    peer.go.add_permits(10);
    for mut client in clients {
        let answer = within("an answer", client.answer()).await;
        assert_eq!(answer.status, 200);
    }
    let again = served.post("/v1/completions", BODY);
    peer.go.add_permits(1);
    assert_eq!(again.await.status, 200);
    assert_eq!(peer.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_own_stream_only() {
    let tasks = Tasks::new();
    let peer = Peer::start(&tasks, vec![Deed::EchoLater]).await;
    let served = served(&peer);
    let mut leaving = served.client().await;
    let mut staying = served.client().await;
    for (client, number) in [(&mut leaving, 1), (&mut staying, 2)] {
        client
            .send("POST", "/v1/completions", "", BODY.as_bytes())
            .await;
        let arrived = || peer.open.load(Ordering::SeqCst) == number;
        eventually("the request is at the peer", arrived).await;
    }
    drop(leaving);
    let reset = || peer.reset.load(Ordering::SeqCst) == 1;
    eventually("the stream is reset", reset).await;
    peer.go.add_permits(1);
    let answer = within("the other's answer", staying.answer()).await;
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_reset_in_the_middle_is_not_the_end_of_an_answer() {
    let tasks = Tasks::new();
    let peer = Peer::start(&tasks, vec![Deed::Cut]).await;
    let served = served(&peer);
    let mut client: Client = served.client().await;
    client
        .send("POST", "/v1/completions", "", BODY.as_bytes())
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    assert_eq!(client.chunk().await.as_deref(), Some(b"half".as_slice()));
    peer.go.add_permits(1);
    assert_eq!(client.chunk().await, None, "cut, not ended");
}

#[tokio::test]
async fn an_upstream_that_answers_without_grpc_is_said_to() {
    let tasks = Tasks::new();
    let peer = Peer::start(&tasks, vec![Deed::Echo]).await;
    let fields = serde_json::json!({"url": peer.url, "kind": "triton", "oip": "grpc"});
    let served = Served::start(&[upstream("u", fields)]);
    let mut channel = Channel::open(&served, served.public).await;
    let called = channel.call("ModelInfer", &infer("elsewhere")).await;
    assert_eq!(called.status, "14", "{}", called.text);
    assert!(
        called.text.contains("HTTP 200 without gRPC"),
        "{}",
        called.text
    );
    let heads = peer.heads.lock();
    let head = heads.first().expect("a request");
    assert_eq!(
        head.uri().path(),
        "/inference.GRPCInferenceService/ModelInfer"
    );
    assert_eq!(head.headers()["te"], "trailers");
    assert_eq!(head.headers()["content-type"], "application/grpc");
}
