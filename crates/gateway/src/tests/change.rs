//! Publishing and draining with requests in flight.

use serde_json::json;

use super::upstream::{FakeUpstream, IDLE_MS, Step, chunk, json as answer, send, stream_head};
use super::{Served, eventually};
use crate::snapshot::tests::{route, upstream};
use crate::{Door, Gateway};

#[tokio::test]
async fn a_publish_moves_the_next_request_and_leaves_the_current_one() {
    let served = Served::start(&[]);
    let slow = vec![
        stream_head(),
        chunk("data: {}\n\n"),
        Step::Wait,
        chunk("data: [DONE]\n\n"),
        send("0\r\n\r\n"),
    ];
    let old = FakeUpstream::start(&served.tasks, vec![slow]).await;
    let new = FakeUpstream::start(&served.tasks, vec![vec![answer("{\"new\":1}")]]).await;
    let up = |fake: &FakeUpstream| {
        upstream(
            "up",
            json!({"url": fake.url(), "models": ["m"], "idleTimeoutMs": IDLE_MS}),
        )
    };
    let first = served.gateway.publish(&[up(&old)]).expect("good resources");
    let mut client = served.client().await;
    client
        .send("POST", "/v1/chat/completions", "", b"{\"model\":\"m\"}")
        .await;
    client.head().await;
    client.chunk().await.expect("the first event");

    let second = served.gateway.publish(&[up(&new)]).expect("good resources");
    assert_eq!(second, first + 1);
    let got = served
        .post("/v1/chat/completions", "{\"model\":\"m\"}")
        .await;
    assert_eq!(got.text(), "{\"new\":1}");

    let refused = served
        .gateway
        .publish(&[route("r", &["m"], &[("nobody", 1)])]);
    assert!(refused.is_err());
    let got = served
        .post("/v1/chat/completions", "{\"model\":\"m\"}")
        .await;
    assert_eq!(got.text(), "{\"new\":1}", "what was published before stays");

    old.proceed();
    assert_eq!(client.chunk().await.expect("the rest"), b"data: [DONE]\n\n");
}

#[tokio::test]
async fn draining_finishes_what_runs_and_closes_the_rest() {
    let served = Served::start(&[]);
    let slow = vec![Step::Wait, answer("{}")];
    let fake = FakeUpstream::start(&served.tasks, vec![slow]).await;
    let fields = json!({"url": fake.url(), "idleTimeoutMs": IDLE_MS});
    served
        .gateway
        .publish(&[upstream("up", fields)])
        .expect("good resources");
    let mut idle = served.client().await;
    assert_eq!(idle.ask("GET", "/health/live", "", b"").await.status, 200);
    let mut silent = served.client().await;
    let mut busy = served.client().await;
    busy.send("POST", "/v1/chat/completions", "", b"{\"model\":\"m\"}")
        .await;
    eventually("the upstream is asked", || fake.requests().len() == 1).await;

    let gateway = served.gateway.clone();
    let deadline = base::Deadline::after(base::Clock::real().now(), super::PATIENCE);
    let (drained, ()) = tokio::join!(gateway.drain(deadline), async {
        assert!(idle.closed().await);
        assert!(silent.closed().await);
        fake.proceed();
        let got = busy.answer().await;
        assert_eq!((got.status, got.header("connection")), (200, Some("close")));
    });
    assert!(drained);
    let refused = tokio::net::TcpStream::connect(served.public).await;
    assert!(refused.is_err(), "nobody listens any more");
    assert!(served.drain().await, "twice is fine");
}

#[tokio::test]
async fn what_the_kernel_had_accepted_is_served_before_the_port_closes() {
    let served = Served::start(&[]);
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (listener, addr) = Gateway::bind(any).expect("a port");
    let mut ready = super::Client::connect(addr).await;
    ready.send("GET", "/health/ready", "", b"").await;
    let mut busy = super::Client::connect(addr).await;
    busy.send("GET", "/v2", "", b"").await;
    let mut silent = super::Client::connect(addr).await;
    // On one thread nothing of it runs before the drain begins.
    served.gateway.serve(listener, Door::Public);
    let (drained, ()) = tokio::join!(served.drain(), async {
        let got = ready.answer().await;
        assert_eq!(got.status, 503);
        assert!(got.text().contains("the node is stopping"), "{got:?}");
        assert_eq!(busy.answer().await.status, 200);
        for client in [&mut ready, &mut busy, &mut silent] {
            assert!(client.closed().await);
        }
    });
    assert!(drained);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_and_frees_the_upstream() {
    let config = crate::Config {
        send_timeout: std::time::Duration::from_millis(100),
        ..crate::Config::default()
    };
    let served = Served::with(config, &[]);
    // More than two sockets can hold.
    let bytes = 64 << 20;
    let mut endless = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
    endless.resize(endless.len() + bytes, b'x');
    let fake = FakeUpstream::start(&served.tasks, vec![vec![Step::Send(endless)]]).await;
    let fields = json!({"url": fake.url(), "idleTimeoutMs": IDLE_MS});
    served
        .gateway
        .publish(&[upstream("up", fields)])
        .expect("good resources");
    let mut stuck = served.client().await;
    let headers = "x-request-id: stuck\r\n";
    stuck
        .send(
            "POST",
            "/v1/chat/completions",
            headers,
            b"{\"model\":\"m\"}",
        )
        .await;
    let record = served.settled("stuck").await;
    assert!(!record.complete);
    eventually("the upstream is free", || {
        served.gateway.upstreams()[0].in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_is_not() {
    let config = crate::Config {
        head_timeout: std::time::Duration::from_millis(50),
        ..crate::Config::default()
    };
    let served = Served::with(config, &[]);
    let mut busy = served.client().await;
    let body = "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}]}";
    busy.send("POST", "/v2/models/slow/infer", "", body.as_bytes())
        .await;
    let mut silent = served.client().await;
    let mut half = served.client().await;
    half.write(b"GET /v2 HTTP/1.1\r\nhost: te").await;
    let mut h2 = served.client().await;
    h2.write(b"PRI * HTTP/2.0\r\n").await;
    let mut used = served.client().await;
    assert_eq!(used.ask("GET", "/v2", "", b"").await.status, 200);
    for client in [&mut silent, &mut half, &mut h2, &mut used] {
        assert!(client.closed().await);
    }
    assert!(served.recent.latest(10).len() == 1, "slow still runs");
    drop(busy);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let served = Served::start(&[]);
    let error = Gateway::bind(served.public).expect_err("in use");
    assert!(error.to_string().contains(&served.public.to_string()));
}

#[tokio::test]
async fn triton_aliases_offer_what_triton_offers_there() {
    let served = Served::start(&[]);
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (listener, metrics) = Gateway::bind(any).expect("a port");
    served.gateway.serve(listener, Door::Metrics);
    let mut client = super::Client::connect(metrics).await;
    let got = client.ask("GET", "/metrics", "", b"").await;
    assert_eq!(
        got.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        got.text()
            .contains("kapok_gateway_connections{door=\"metrics\"} 1")
    );
    assert_eq!(client.ask("GET", "/v2", "", b"").await.status, 404);
}

#[tokio::test]
async fn requests_are_counted_under_closed_names() {
    let served = Served::start(&[]);
    served.post("/v2/models/echo/infer", "{}").await;
    served.get("/v2/no/such/path").await;
    let text = served.get("/metrics").await;
    for line in [
        "kapok_gateway_requests_total{operation=\"oip infer\",target=\"local\",status=\"4xx\"} 1",
        "kapok_gateway_requests_total{operation=\"unknown\",target=\"\",status=\"4xx\"} 1",
        "kapok_gateway_request_seconds_count{operation=\"oip infer\",target=\"local\"} 1",
        "kapok_gateway_in_flight 1",
    ] {
        assert!(
            text.text().lines().any(|have| have == line),
            "{line} in {}",
            text.text()
        );
    }
}
