use std::path::Path;

use base::Clock;
use protocol::oip::settings::{Change, TraceLevel};
use serde_json::Value;

use super::*;

fn every(rate: u32, file: &Path) -> TraceSettings {
    TraceSettings {
        level: TraceLevel::Timestamps,
        rate,
        file: file.display().to_string(),
        ..TraceSettings::default()
    }
}

fn settle(ticket: Ticket) {
    let clock = Clock::manual();
    let start = clock.now();
    let mut ledger = Ledger::start(start);
    ledger.mark(Stage::Read, start + Duration::from_millis(1));
    ledger.mark(Stage::Infer, start + Duration::from_millis(5));
    ticket.settle(clock.wall(), &ledger);
}

fn entries(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("written");
    serde_json::from_str(&text).expect("a list")
}

#[test]
fn traces_are_tritons_list_and_moments_follow_the_ledger() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.json");
    std::fs::write(&file, "of an earlier run").expect("ours");
    let tracer = Tracer::new(every(1, &file)).expect("usable");
    for wire in [Wire::Http, Wire::Grpc] {
        let mut ticket = tracer.sample("m", wire).expect("each is traced");
        ticket.version = "3".to_owned();
        ticket.request_id = "a\"b".to_owned();
        settle(*ticket);
        // Each time a new writer: the list goes on.
        tracer.flush();
    }
    let entries = entries(&file);
    assert_eq!(entries.len(), 2 * 13);
    assert_eq!(
        entries[0],
        serde_json::json!({"id": 1, "model_name": "m", "model_version": 3, "request_id": "a\"b"})
    );
    let moment = |name: &str, id: u64| -> u64 {
        let found = entries
            .iter()
            .find(|entry| entry["id"] == id && entry["timestamps"][0]["name"] == name);
        found
            .and_then(|entry| entry["timestamps"][0]["ns"].as_u64())
            .unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!(
        moment("HTTP_RECV_END", 1) - moment("HTTP_RECV_START", 1),
        1_000_000
    );
    assert_eq!(
        moment("COMPUTE_OUTPUT_START", 1) - moment("COMPUTE_INPUT_END", 1),
        4_000_000
    );
    assert_eq!(
        moment("GRPC_SEND_END", 2) - moment("GRPC_WAITREAD_START", 2),
        5_000_000
    );
}

#[test]
fn rate_count_and_frequency_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.json");
    let settings = TraceSettings {
        count: 5,
        log_frequency: 2,
        ..every(3, &file)
    };
    let tracer = Tracer::new(settings).expect("usable");
    let mut taken = 0;
    for _request in 0..30 {
        if let Some(ticket) = tracer.sample("m", Wire::Http) {
            taken += 1;
            settle(*ticket);
        }
    }
    assert_eq!((taken, tracer.settings(None).count), (5, 0));
    tracer.flush();
    for (index, traces) in [(0, 2), (1, 2), (2, 1)] {
        let file = folder.path().join(format!("trace.json.{index}"));
        assert_eq!(entries(&file).len(), traces * 13, "{index}");
    }
    assert!(!file.exists());
}

#[test]
fn a_models_own_settings_win_and_clearing_falls_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = TraceSettings {
        level: TraceLevel::Off,
        ..every(7, &folder.path().join("t"))
    };
    let tracer = Tracer::new(settings).expect("usable");
    assert!(tracer.sample("m", Wire::Http).is_none());
    let on = TraceChange {
        level: Change::Set(TraceLevel::Timestamps),
        rate: Change::Set(1),
        ..TraceChange::default()
    };
    let own = tracer.change(Some("m"), on).expect("usable");
    assert_eq!((own.level, own.rate), (TraceLevel::Timestamps, 1));
    assert!(tracer.sample("m", Wire::Http).is_some());
    assert!(tracer.sample("other", Wire::Http).is_none());
    let rate = TraceChange {
        count: Change::Set(9),
        ..TraceChange::default()
    };
    tracer.change(None, rate).expect("usable");
    let mirrored = tracer.settings(Some("m"));
    assert_eq!((mirrored.rate, mirrored.count), (1, 9));
    let clear = TraceChange {
        level: Change::Clear,
        rate: Change::Clear,
        ..TraceChange::default()
    };
    let cleared = tracer.change(Some("m"), clear).expect("usable");
    assert_eq!((cleared.level, cleared.rate), (TraceLevel::Off, 7));
}

#[test]
fn settings_that_cannot_work_are_refused_and_change_nothing() {
    let tracer = Tracer::new(TraceSettings::default()).expect("off is usable");
    let on = TraceChange {
        level: Change::Set(TraceLevel::Timestamps),
        ..TraceChange::default()
    };
    let error = tracer.change(None, on).expect_err("there is no file");
    assert_eq!(
        error.to_string(),
        "Attempting to set invalid trace setting :trace file name is not given"
    );
    assert_eq!(tracer.settings(None).level, TraceLevel::Off);
    let zero = Tracer::new(every(0, Path::new("x")));
    assert!(zero.is_err_and(|error| error.to_string().contains("non-zero")));
}

#[test]
fn a_disk_that_fails_costs_traces_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing/trace.json");
    let tracer = Tracer::new(every(1, &missing)).expect("usable");
    for _request in 0..3 {
        settle(*tracer.sample("m", Wire::Http).expect("still traced"));
    }
    tracer.flush();
    assert!(!missing.exists());
}
