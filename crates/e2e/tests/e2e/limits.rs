//! Every queue is bounded and every request has an end: what is full or late says so.

use std::time::Duration;

use e2e::repository::Builtin;
use e2e::{Kapok, Repository, Response, Running, wait};
use serde_json::json;

use crate::doors::infer_body;

fn slow(delay_ms: u32) -> Repository {
    let model = Builtin {
        delay_ms,
        ..Builtin::default()
    };
    Repository::new().builtin("slow", &model)
}

fn ask(kapok: &Running, timeout_ms: u32) -> Response {
    kapok
        .http()
        .header("x-request-timeout-ms", &timeout_ms.to_string())
        .post("/v2/models/slow/infer", infer_body(&[1], &json!([1])))
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let repository = slow(1000);
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .arg("--set")
        .arg("node.queueMax=1")
        .start();
    // More at once than lanes and queue can hold, so that some must be refused and the first must not.
    let offered = 2 * base::core_budget().get() + 4;
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..offered)
            .map(|_| scope.spawn(|| ask(&kapok, 30_000)))
            .collect();
        let answer = |call: std::thread::ScopedJoinHandle<'_, _>| call.join().expect("an answer");
        calls.into_iter().map(answer).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(!served.is_empty() && !refused.is_empty(), "{answers:?}");
    for answer in refused {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.json()["error"].is_string());
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert_eq!(ask(&kapok, 30_000).status, 200);
}

#[test]
fn a_deadline_that_passes_is_told_and_frees_the_lane() {
    let repository = slow(2000);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    // One lane or two: had a late caller kept its lane, these would not all be told in time.
    for _ in 0..6 {
        let late = ask(&kapok, 150);
        assert_eq!(late.status, 504, "{}", late.text());
        assert!(late.json()["error"].is_string());
    }
    assert_eq!(ask(&kapok, 30_000).status, 200);
}

#[test]
fn stopping_lets_the_request_in_flight_finish() {
    let repository = slow(1500);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let pid = kapok.pid();
    let client = kapok.http();
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| ask(&kapok, 30_000));
        // The scrape itself is one.
        wait::until("the request to be in flight", || {
            let metrics = client.get("/metrics").text();
            let line = |line: &&str| line.starts_with("kapok_gateway_in_flight");
            let gauge = metrics.lines().find(line)?.rsplit(' ').next()?;
            let in_flight: f64 = gauge.parse().ok()?;
            (in_flight >= 2.0).then_some(())
        });
        e2e::signal("TERM", pid);
        call.join().expect("an answer")
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait::until("it to refuse new connections", || {
        client.open().is_err().then_some(())
    });
}

#[test]
fn stopping_while_models_load_ends_well() {
    let models = ["pp-ocrv4-cls", "magika", "all-minilm-l6-v2", "pp-ocrv4-det"];
    let repository = models
        .into_iter()
        .fold(Repository::new(), |repository, name| {
            repository.link(name, &e2e::repository::fetched(name))
        });
    // Whatever an engine's library does at that moment.
    for _ in 0..8 {
        let kapok = Kapok::new()
            .model_repo(repository.path())
            .when_live()
            .start();
        kapok.wait_for_log("model is ready");
        assert_eq!(kapok.stop(), 0);
    }
}

#[test]
fn a_client_who_hangs_up_frees_the_lane() {
    // The one lane is held for ten seconds unless its caller leaves.
    let repository = slow(10_000);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let client = kapok.http();
    let body = infer_body(&[1], &json!([1]));
    let mut http1 = client.head("POST", "/v2/models/slow/infer", body.len());
    http1.extend_from_slice(&body);
    let h2 = h2_request("/v2/models/slow/infer", &body);
    for (protocol, message) in [("HTTP/1.1", &http1), ("h2", &h2)] {
        let mut leaving = client.open().expect("connects");
        leaving.send(message).expect("sends");
        // The scrape itself is one.
        until_gauge(&kapok, "kapok_gateway_in_flight", 2.0);
        let mut behind = client.open().expect("connects");
        behind.send(&http1).expect("sends");
        until_gauge(&kapok, "kapok_runtime_queue_depth", 1.0);
        let (clock, began) = (base::Clock::real(), base::Clock::real().now());
        drop(leaving);
        until_gauge(&kapok, "kapok_runtime_queue_depth", 0.0);
        let took = clock.now().saturating_duration_since(began);
        eprintln!("{protocol}: the lane was free within {took:?} of the connection's end");
        assert!(took < Duration::from_secs(5), "{protocol}: {took:?}");
        drop(behind);
        until_gauge(&kapok, "kapok_gateway_in_flight", 1.0);
    }
    let said = e2e::python::Script::new("grpc_cancel.py")
        .against(&kapok)
        .run();
    eprintln!("{said}");
}

fn until_gauge(kapok: &Running, name: &str, expected: f64) {
    wait::until(&format!("{name} to be {expected}"), || {
        let metrics = kapok.http().get("/metrics").text();
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        (values.sum::<f64>() == expected).then_some(())
    });
}

/// A JSON POST as the first stream of an h2 connection without an upgrade; its server's frames are not read.
fn h2_request(path: &str, body: &[u8]) -> Vec<u8> {
    const END_STREAM: u8 = 0x1;
    const END_HEADERS: u8 = 0x4;
    let mut message = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        message.extend_from_slice(&length[1..]);
        message.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        message.extend_from_slice(payload);
    };
    // Literal, not indexed, not compressed: RFC 7541, 6.2.2.
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "kapok"),
        (":path", path),
        ("content-type", "application/json"),
    ] {
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("short"));
            headers.extend_from_slice(text.as_bytes());
        }
    }
    frame(0x4, 0, 0, &[]);
    frame(0x1, END_HEADERS, 1, &headers);
    frame(0x0, END_STREAM, 1, body);
    message
}
