//! Where the time went: `Server-Timing`, and `kapok explain`.

use std::time::Duration;

use base::Clock;
use e2e::repository::Builtin;
use e2e::{Answer, FakeUpstream, Kapok, Repository};
use serde_json::{Value, json};

use crate::doors::infer_body;

/// What connecting, sending and reading over loopback and the client's own work may take on a busy machine. The server
/// cannot see it, so it is no part of its total.
const OUTSIDE: Duration = Duration::from_millis(15);

#[test]
fn the_stages_of_a_slow_call_sum_to_its_wall_time() {
    let slow = Builtin {
        delay_ms: 300,
        ..Builtin::default()
    };
    let repository = Repository::new().builtin("slow", &slow);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let clock = Clock::real();
    let before = clock.now();
    let answer = kapok
        .http()
        .post("/v2/models/slow/infer", infer_body(&[1], &json!([1])));
    let wall = clock.now() - before;
    assert_eq!(answer.status, 200, "{}", answer.text());

    let timing = answer.server_timing();
    let (last, total) = timing.last().expect("Server-Timing").clone();
    assert_eq!(last, "total");
    let stages: f64 = timing[..timing.len() - 1].iter().map(|(_, ms)| ms).sum();
    // Each stage is printed to a microsecond, so rounding can add half of one per stage.
    assert!((stages - total).abs() <= 0.001 * 15.0, "{timing:?}");
    let infer = timing.iter().find(|(stage, _)| stage == "infer");
    assert!(infer.is_some_and(|(_, ms)| *ms >= 300.0), "{timing:?}");
    let wall_ms = wall.as_secs_f64() * 1e3;
    let slack = wall_ms * 0.01 + OUTSIDE.as_secs_f64() * 1e3;
    assert!(total <= wall_ms, "{total} ms of {wall_ms}");
    assert!(total >= wall_ms - slack, "{total} ms of {wall_ms}");
}

fn sums_to_total(record: &Value) {
    let stages = record["stages"].as_array().expect("stages");
    assert!(!stages.is_empty(), "{record}");
    let sum: f64 = stages.iter().filter_map(|stage| stage["ms"].as_f64()).sum();
    let total = record["total_ms"].as_f64().expect("a total");
    assert!((sum - total).abs() <= total * 0.01 + 1e-6, "{record}");
}

#[test]
fn explain_shows_a_local_and_a_relayed_request() {
    let fake = FakeUpstream::start(Answer::json("{\"choices\":[]}"));
    let repository = Repository::new().builtin("identity", &Builtin::default());
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .upstream("llm", &fake.url())
        .start();
    let local = kapok
        .http()
        .post("/v2/models/identity/infer", infer_body(&[1], &json!([1])));
    let relayed = kapok
        .http()
        .post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#);
    let lost = kapok
        .http()
        .post("/v2/models/nope/infer", infer_body(&[1], &json!([1])));
    for (answer, target, status) in [
        (&local, "local", 200),
        (&relayed, "llm", 200),
        (&lost, "", 404),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        let id = answer.header("x-request-id").expect("an id").to_owned();
        let shown = kapok.cli(&["explain", &id]);
        assert_eq!(shown.code, 0, "{shown:?}");
        let record = shown.json();
        assert_eq!(record["request_id"], id);
        assert_eq!(record["status"], status, "{record}");
        if status == 200 {
            assert_eq!(record["target"], target, "{record}");
            assert_eq!(record["complete"], true, "{record}");
            assert_ne!(record["reason"], "", "{record}");
        } else {
            assert!(record["error"].is_string(), "{record}");
        }
        sums_to_total(&record);
    }
    let unknown = kapok.cli(&["explain", "req-0"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("req-0"), "{unknown:?}");
}
