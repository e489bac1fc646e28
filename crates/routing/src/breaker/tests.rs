use std::time::{Duration, Instant};

use base::Clock;

use super::*;
use Blame::{Nobody, Praise, Upstream};

const RULES: BreakerRules = BreakerRules {
    consecutive: 5,
    failure_percent: 50,
    requests_min: 20,
    window: Duration::from_secs(10),
    open: Duration::from_secs(5),
    open_max: Duration::from_secs(30),
};

const ANNE: Caller = Caller(1);
const BOB: Caller = Caller(2);

struct Bench {
    breaker: Breaker,
    start: Instant,
    seconds: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            breaker: Breaker::default(),
            start: Clock::manual().now(),
            seconds: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    fn end(&mut self, blame: Blame, caller: Option<Caller>, times: u32) -> bool {
        let now = self.now();
        (0..times).fold(false, |opened, _| {
            self.breaker.record(blame, caller, now, &RULES) || opened
        })
    }

    fn standings(&self) -> (Standing, Standing) {
        let now = self.now();
        (
            self.breaker.standing(ANNE, now),
            self.breaker.standing(BOB, now),
        )
    }

    fn probe(&mut self) {
        let now = self.now();
        self.breaker.probe(now, Duration::from_secs(60));
    }
}

#[test]
fn five_failures_in_a_row_open_and_a_success_between_does_not() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        assert!(!bench.end(Upstream, None, 4));
        bench.end(Praise, Some(ANNE), 1);
    }
    assert!(!bench.end(Upstream, None, 4));
    assert!(bench.end(Upstream, None, 1));
    assert_eq!(bench.standings(), (Standing::Open, Standing::Open));
}

#[test]
fn half_of_twenty_open_although_none_follow_each_other() {
    let mut bench = Bench::new();
    for round in 0..10 {
        assert!(!bench.end(Upstream, [Some(ANNE), Some(BOB)][round % 2], 1));
        bench.end(Praise, Some(ANNE), 1);
    }
    assert!(bench.end(Upstream, Some(ANNE), 1));
    assert_eq!(bench.standings(), (Standing::Open, Standing::Open));

    let mut rare = Bench::new();
    for _ in 0..30 {
        assert!(!rare.end(Upstream, None, 1));
        rare.end(Praise, Some(BOB), 2);
    }
}

#[test]
fn failures_that_lie_far_apart_are_forgotten() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        assert!(!bench.end(Upstream, None, 1));
        bench.seconds += 10;
    }
}

#[test]
fn busy_and_bad_requests_are_no_failures() {
    let mut bench = Bench::new();
    assert!(!bench.end(Nobody, Some(ANNE), 1000));
    assert!(bench.breaker.at_rest());
}

#[test]
fn one_caller_closes_the_way_for_itself_only() {
    let mut bench = Bench::new();
    assert!(bench.end(Upstream, Some(ANNE), 5));
    assert_eq!(bench.standings(), (Standing::Open, Standing::Good));
    // Answers to others do not open it for her again, and her failures do not close it for others.
    bench.end(Praise, Some(BOB), 100);
    bench.end(Upstream, Some(ANNE), 100);
    assert_eq!(bench.standings(), (Standing::Open, Standing::Good));
    // It fails for others as well: then it is the upstream.
    assert!(bench.end(Upstream, Some(BOB), 5));
    assert_eq!(bench.standings(), (Standing::Open, Standing::Open));
}

#[test]
fn two_callers_failures_count_together() {
    let mut bench = Bench::new();
    bench.end(Upstream, Some(ANNE), 3);
    assert!(bench.end(Upstream, Some(BOB), 2));
    assert_eq!(bench.standings(), (Standing::Open, Standing::Open));
}

#[test]
fn half_open_needs_a_success() {
    let mut bench = Bench::new();
    bench.end(Upstream, None, 5);
    bench.seconds += 5;
    assert_eq!(bench.standings().0, Standing::Probe);
    bench.probe();
    assert_eq!(bench.standings().0, Standing::Open, "one probe at a time");
    bench.end(Nobody, Some(ANNE), 1);
    assert_eq!(bench.standings().0, Standing::Probe, "a 400 tells nothing");
    bench.probe();
    bench.end(Praise, Some(ANNE), 1);
    assert_eq!(bench.standings().0, Standing::Good);
    assert!(bench.breaker.at_rest());
}

#[test]
fn each_failed_probe_doubles_the_wait_up_to_its_end() {
    let mut bench = Bench::new();
    bench.end(Upstream, None, 5);
    bench.seconds += 5;
    for wait in [10, 20, 30, 30] {
        bench.probe();
        bench.end(Upstream, None, 1);
        // The ends of other requests that were under way change nothing.
        bench.end(Upstream, Some(ANNE), 7);
        bench.end(Nobody, Some(ANNE), 7);
        bench.seconds += wait - 1;
        assert_eq!(bench.standings().0, Standing::Open, "{wait}");
        bench.seconds += 1;
        assert_eq!(bench.standings().0, Standing::Probe, "{wait}");
    }
}

#[test]
fn a_passed_health_check_brings_the_probe_forward_and_no_more() {
    let mut bench = Bench::new();
    bench.end(Upstream, None, 5);
    let now = bench.now();
    bench.breaker.may_probe(now);
    assert_eq!(bench.standings().0, Standing::Probe);
}
