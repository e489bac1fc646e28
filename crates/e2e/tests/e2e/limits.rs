//! Every queue is bounded and every request has an end: what is full or late says so.

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
fn a_client_who_hangs_up_frees_the_lane() {
    let repository = slow(4000);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let client = kapok.http();
    let body = infer_body(&[1], &json!([1]));
    let mut message = client.head("POST", "/v2/models/slow/infer", body.len());
    message.extend_from_slice(&body);
    let mut leaving = client.open().expect("connects");
    leaving.send(&message).expect("sends");
    wait::until("the request to be in flight", || {
        let metrics = client.get("/metrics").text();
        let line = |line: &&str| line.starts_with("kapok_gateway_in_flight");
        let in_flight = metrics.lines().find(line)?.rsplit(' ').next()?;
        (in_flight.parse::<f64>().ok()? >= 2.0).then_some(())
    });
    drop(leaving);
    assert_eq!(ask(&kapok, 30_000).status, 200);
    check_nobody_waited(&kapok);
    e2e::python::Script::new("grpc_cancel.py")
        .against(&kapok)
        .run();
    check_nobody_waited(&kapok);
}

/// Had the one lane stayed with who is gone, the next would have waited for most of the four seconds.
fn check_nobody_waited(kapok: &Running) {
    let stats = kapok.http().get("/v2/models/slow/stats").json();
    let queue = &stats["model_stats"][0]["inference_stats"]["queue"];
    let waited = queue["ns"].as_u64().expect("nanoseconds");
    assert!(waited < 1_000_000_000, "{stats}");
}
