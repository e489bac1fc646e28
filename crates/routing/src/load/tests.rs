use super::*;

fn report(queued: u32, running: u32) -> Report {
    Report {
        queued: Some(queued),
        running: Some(running),
        kv_use: Some(0.25),
        gpu_free_bytes: Some(0),
    }
}

#[test]
fn a_peak_counts_at_once_and_is_forgotten_in_tens_of_seconds() {
    let meter = Meter::default();
    assert_eq!(meter.read(5).latency_us, None);
    meter.answered(100.0, 0);
    meter.answered(5000.0, 10);
    assert_eq!(meter.read(10).latency_us, Some(5000.0));
    meter.answered(100.0, 20);
    let soon = meter.read(20).latency_us.expect("a latency");
    assert!(soon > 4900.0, "{soon}");
    meter.answered(100.0, 30_020);
    let late = meter.read(30_020).latency_us.expect("a latency");
    assert!(late < 400.0, "{late}");
}

#[test]
fn who_fails_quickly_does_not_look_quick() {
    let meter = Meter::default();
    meter.failed(10.0, 0);
    assert_eq!(meter.read(0).latency_us, Some(FAILURE_US_MIN));
    meter.answered(400_000.0, 0);
    meter.failed(10.0, 0);
    assert_eq!(meter.read(0).latency_us, Some(800_000.0));
    for _ in 0..100 {
        meter.failed(10.0, 0);
    }
    assert_eq!(meter.read(0).latency_us, Some(FAILURE_US_MAX));
    meter.answered(1000.0, 60_000);
    let later = meter.read(60_000).latency_us.expect("a latency");
    assert!(later < FAILURE_US_MAX / 100.0, "{later}");
}

#[test]
fn what_we_sent_since_a_report_is_added_to_it() {
    let meter = Meter::default();
    for _ in 0..3 {
        meter.enter();
    }
    meter.report(&report(4, 6), 1000);
    assert_eq!(meter.read(1000).depth(), 10.0, "ours are among them");
    for _ in 0..5 {
        meter.enter();
    }
    assert_eq!(meter.read(1500).depth(), 15.0);
    for _ in 0..7 {
        meter.leave();
    }
    assert_eq!(meter.read(1500).depth(), 8.0);
    let reported = meter.read(1500).reported.expect("a report");
    assert_eq!(reported.age_ms, 500);
    assert_eq!(reported.report, report(4, 6));
}

#[test]
fn never_less_than_our_own_requests() {
    let meter = Meter::default();
    meter.report(&report(0, 0), 1);
    meter.enter();
    meter.report(&report(0, 0), 2);
    meter.enter();
    assert_eq!(meter.read(2).depth(), 2.0);
}

#[test]
fn an_old_report_says_nothing() {
    let meter = Meter::default();
    meter.report(&report(50, 50), u32::MAX - 10);
    assert_eq!(meter.read(20).depth(), 100.0, "time may wrap");
    assert_eq!(meter.read(STALE_MS).depth(), 0.0);
    meter.report(&report(50, 50), 100);
    meter.forget_report();
    assert_eq!(meter.read(100).depth(), 0.0);
}

#[test]
fn what_a_server_does_not_tell_is_not_taken_for_nothing() {
    let meter = Meter::default();
    meter.enter();
    for said in [
        Report::default(),
        Report {
            kv_use: Some(0.0),
            ..Report::default()
        },
    ] {
        meter.report(&said, 7);
        assert_eq!(meter.read(7).reported.expect("a report").report, said);
        assert_eq!(meter.read(7).depth(), 1.0);
    }
}
