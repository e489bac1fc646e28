use std::time::Duration;

use super::*;
use crate::Policy;

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary origin; it never moves"
)]
fn origin() -> Instant {
    Instant::now()
}

fn batching(rows_max: usize, delay_ms: u64, preferred: &[usize]) -> Settings {
    Settings {
        rows_max,
        delay: Duration::from_millis(delay_ms),
        preferred: preferred.to_vec(),
        ..Settings::single(1, 100)
    }
}

struct Scene {
    batcher: Batcher,
    start: Instant,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        Self {
            batcher: Batcher::new(settings),
            start: origin(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn request(&self, rows: usize) -> Request {
        Request {
            rows,
            class: 0,
            priority: 0,
            timeout: None,
            deadline: self.at(1_000_000),
            lane: None,
        }
    }

    fn arrive(&mut self, ms: u64, request: Request) -> Result<u64, Full> {
        let at = self.at(ms);
        self.batcher.arrive(at, request).map(|ticket| ticket.0)
    }

    fn rows(&mut self, ms: u64, rows: &[usize]) {
        for rows in rows {
            let request = self.request(*rows);
            self.arrive(ms, request).expect("there is room");
        }
    }

    /// The next batch's tickets.
    fn next(&mut self, ms: u64) -> Option<Vec<u64>> {
        let at = self.at(ms);
        let batch = self.batcher.next(at, &mut || true)?;
        Some(batch.tickets.iter().map(|ticket| ticket.0).collect())
    }

    fn expired(&mut self, ms: u64) -> Vec<(u64, Why)> {
        let at = self.at(ms);
        let expired = self.batcher.expired(at);
        expired
            .into_iter()
            .map(|one| (one.ticket.0, one.why))
            .collect()
    }

    fn wake_ms(&self) -> Option<u128> {
        let wake = self.batcher.wake()?;
        Some(wake.saturating_duration_since(self.start).as_millis())
    }
}

#[test]
fn a_batch_is_of_a_preferred_size_or_waited_long_enough() {
    let all: &[usize] = &[];
    // largest, delay, preferred, rows that wait, what runs at 0 ms, what runs when the delay is over
    type Case<'a> = (
        usize,
        u64,
        &'a [usize],
        &'a [usize],
        Option<usize>,
        Option<usize>,
    );
    let cases: [Case<'_>; 12] = [
        (8, 0, all, &[1], Some(1), None),
        (8, 0, all, &[1; 11], Some(8), None),
        (8, 5, all, &[1; 3], None, Some(3)),
        (8, 5, all, &[1; 9], Some(8), None),
        (8, 5, &[4], &[1; 3], None, Some(3)),
        (8, 5, &[4], &[1; 5], Some(4), None),
        (8, 5, &[2, 4], &[1; 3], Some(2), None),
        (8, 0, &[4], &[1; 7], Some(4), None),
        (8, 5, &[4], &[3, 3], Some(1), None),
        (8, 5, &[4], &[6], Some(1), None),
        (8, 5, &[4], &[3, 2, 1], Some(2), None),
        (1, 5, all, &[1, 1], Some(1), None),
    ];
    for (largest, delay, preferred, waiting, now, later) in cases {
        let mut scene = Scene::new(batching(largest, delay, preferred));
        scene.rows(0, waiting);
        let case = format!("{largest} {delay} {preferred:?} {waiting:?}");
        assert_eq!(scene.next(0).map(|batch| batch.len()), now, "{case}");
        if now.is_none() {
            assert_eq!(scene.wake_ms(), Some(u128::from(delay)), "{case}");
            assert_eq!(scene.next(delay).map(|batch| batch.len()), later, "{case}");
        }
    }
}

#[test]
fn the_most_urgent_go_first_and_unknown_priorities_are_the_default() {
    let settings = Settings {
        levels: vec![Policy::default(); 3],
        level_default: 1,
        ..Settings::single(1, 100)
    };
    let mut scene = Scene::new(settings);
    for priority in [3, 0, 1, 2, 9] {
        let request = Request {
            priority,
            ..scene.request(1)
        };
        scene.arrive(0, request).expect("there is room");
    }
    let mut order = Vec::new();
    while let Some(batch) = scene.next(0) {
        order.extend(batch);
        scene.batcher.done(0);
    }
    assert_eq!(order, [2, 1, 3, 4, 0]);
}

#[test]
fn a_timeout_rejects_or_puts_behind_while_the_lane_is_busy() {
    for action in [OnTimeout::Reject, OnTimeout::Delay] {
        let policy = Policy {
            timeout: Some(Duration::from_millis(10)),
            action,
            may_override: true,
            waiting_max: None,
        };
        let mut scene = Scene::new(Settings {
            levels: vec![policy],
            ..Settings::single(1, 100)
        });
        scene.rows(0, &[1]);
        assert_eq!(scene.next(0), Some(vec![0]));
        let hasty = Request {
            timeout: Some(Duration::from_millis(3)),
            ..scene.request(1)
        };
        let stubborn = Request {
            timeout: Some(Duration::from_millis(50)),
            deadline: scene.at(30),
            ..scene.request(1)
        };
        scene.arrive(0, hasty).expect("there is room");
        scene.arrive(0, stubborn).expect("there is room");
        assert_eq!(scene.wake_ms(), Some(3));
        let reject = action == OnTimeout::Reject;
        let hasty: &[_] = if reject { &[(1, Why::Timeout)] } else { &[] };
        assert_eq!(scene.expired(3), hasty);
        let stubborn: &[_] = if reject { &[(2, Why::Timeout)] } else { &[] };
        assert_eq!(
            scene.expired(10),
            stubborn,
            "a longer timeout cannot be asked for"
        );
        let deadline: &[_] = if reject { &[] } else { &[(2, Why::Deadline)] };
        assert_eq!(scene.expired(30), deadline);
        scene.rows(30, &[1]);
        scene.batcher.done(0);
        assert_eq!(scene.next(30), Some(vec![3]));
        scene.batcher.done(0);
        assert_eq!(scene.next(30), (!reject).then_some(vec![1]));
    }
}

#[test]
fn each_level_and_the_whole_queue_are_bounded() {
    let level = |waiting_max| Policy {
        waiting_max,
        ..Policy::default()
    };
    let mut scene = Scene::new(Settings {
        levels: vec![level(Some(1)), level(None)],
        waiting_max: 3,
        ..Settings::single(1, 0)
    });
    let mut arrive = |priority| {
        let request = Request {
            priority,
            ..scene.request(1)
        };
        let arrived = scene.arrive(0, request);
        let _started = scene.next(0);
        arrived
    };
    for (priority, expected) in [
        (1, Ok(0)),
        (1, Ok(1)),
        (1, Err(Full { waiting: 1 })),
        (2, Ok(2)),
        (2, Ok(3)),
        (2, Err(Full { waiting: 3 })),
    ] {
        assert_eq!(arrive(priority), expected);
    }
}

#[test]
fn only_requests_of_one_class_share_a_batch_and_none_waits_for_another_class() {
    let mut scene = Scene::new(batching(4, 0, &[]));
    for class in [1, 2, 1, 2, 3] {
        let request = Request {
            class,
            ..scene.request(1)
        };
        scene.arrive(0, request).expect("there is room");
    }
    let mut batches = Vec::new();
    while let Some(batch) = scene.next(0) {
        batches.push(batch);
        scene.batcher.done(0);
    }
    assert_eq!(batches, [vec![0, 2], vec![1, 3], vec![4]]);
}

#[test]
fn a_sequence_keeps_to_its_lane_and_others_pass_it() {
    let mut scene = Scene::new(Settings::single(2, 100));
    let on = |lane| Request {
        lane: Some(lane),
        ..scene.request(1)
    };
    let (first, second) = (on(1), on(1));
    scene.arrive(0, first).expect("there is room");
    scene.arrive(0, second).expect("there is room");
    scene.rows(0, &[1]);
    let at = scene.at(0);
    let mut lanes = Vec::new();
    while let Some(batch) = scene.batcher.next(at, &mut || true) {
        lanes.push((batch.lane, batch.tickets[0].0));
    }
    lanes.sort_unstable();
    assert_eq!(lanes, [(0, 2), (1, 0)]);
    scene.batcher.done(0);
    assert_eq!(scene.next(0), None, "lane 1 is still busy");
    scene.batcher.done(1);
    assert_eq!(scene.next(0), Some(vec![1]));
}

#[test]
fn who_left_is_not_in_the_batch() {
    let mut scene = Scene::new(batching(4, 5, &[]));
    scene.rows(0, &[1, 1, 1]);
    assert_eq!(scene.next(0), None);
    assert!(scene.batcher.leave(Ticket(1)));
    assert!(!scene.batcher.leave(Ticket(1)));
    assert_eq!(scene.next(5), Some(vec![0, 2]));
}

#[test]
fn answers_leave_in_order_where_that_is_promised() {
    let mut scene = Scene::new(Settings {
        ordered: true,
        ..Settings::single(3, 100)
    });
    scene.rows(0, &[1, 1, 1]);
    while scene.next(0).is_some() {}
    let numbers = |tickets: Vec<Ticket>| tickets.iter().map(|ticket| ticket.0).collect::<Vec<_>>();
    assert_eq!(numbers(scene.batcher.answered(Ticket(2))), [0_u64; 0]);
    assert_eq!(numbers(scene.batcher.answered(Ticket(0))), [0]);
    assert_eq!(numbers(scene.batcher.unanswered(Ticket(1))), [2]);
}

#[test]
fn without_a_grant_nothing_starts() {
    let mut scene = Scene::new(batching(4, 0, &[]));
    scene.rows(0, &[1]);
    let at = scene.at(0);
    assert_eq!(scene.batcher.next(at, &mut || false), None);
    assert_eq!((scene.batcher.waiting(), scene.batcher.idle()), (1, 1));
    assert_eq!(scene.next(0), Some(vec![0]));
}

#[test]
fn who_names_a_delay_or_sizes_gets_them_whatever_they_are_worth() {
    // (delay, preferred sizes, rows of most batches where four together take four times as long as each alone)
    for (delay_ms, preferred, expected) in [(0, &[][..], 1), (5, &[], 4), (0, &[4], 4)] {
        let mut scene = Scene::new(batching(4, delay_ms, preferred));
        let mut sizes = Vec::new();
        for _ in 0..100 {
            while scene.batcher.waiting() < 8 {
                scene.rows(0, &[1]);
            }
            let rows = scene.next(0).expect("eight wait").len();
            let took = Duration::from_millis(10 * rows as u64 * rows as u64);
            scene.batcher.learn(0, rows, took);
            scene.batcher.done(0);
            sizes.push(rows);
        }
        assert_eq!(sizes[0], 4, "nothing is known yet");
        let others = sizes.iter().filter(|rows| **rows != expected).count();
        assert!(others <= 10, "{delay_ms} ms, {preferred:?}: {sizes:?}");
    }
}

fn learned(target_ms: u64) -> Scene {
    let mut scene = Scene::new(Settings {
        target: Some(Duration::from_millis(target_ms)),
        ..batching(32, 0, &[])
    });
    for _ in 0..20 {
        for rows in [1, 2, 4, 8, 16, 32] {
            let took = Duration::from_micros(2_000 + 500 * rows as u64);
            scene.batcher.learn(0, rows, took);
        }
    }
    scene
}

#[test]
fn with_a_target_a_lone_request_does_not_wait() {
    let mut scene = learned(40);
    scene.rows(0, &[1]);
    assert_eq!(scene.next(0), Some(vec![0]));
}

#[test]
fn with_a_target_the_batch_is_no_larger_than_the_target_allows() {
    // (target, rows of the first batch of 32 that wait)
    for (target_ms, expected) in [(60, 32), (20, 28), (8, 8)] {
        let mut scene = learned(target_ms);
        scene.rows(0, &[1; 32]);
        let rows = scene.next(0).map(|batch| batch.len());
        assert_eq!(rows, Some(expected), "{target_ms} ms");
    }
}

#[test]
fn who_can_wait_longer_makes_no_batch_that_others_would_wait_for() {
    // (rows that are due with the target, rows of the first batch of 32 that wait)
    for (urgent, expected) in [(0, 12), (8, 12), (20, 20), (32, 28)] {
        let mut scene = learned(20);
        scene.rows(0, &vec![1; urgent]);
        for _ in urgent..32 {
            let patient = Request {
                timeout: Some(Duration::from_secs(2)),
                ..scene.request(1)
            };
            scene.arrive(0, patient).expect("there is room");
        }
        let rows = scene.next(0).map(|batch| batch.len());
        assert_eq!(rows, Some(expected), "{urgent} urgent");
    }
}

#[test]
fn a_lone_request_may_run_where_it_is_unless_it_should_wait_for_others() {
    let order = Settings {
        ordered: true,
        ..batching(4, 0, &[])
    };
    let target = Settings {
        target: Some(Duration::from_millis(20)),
        ..batching(4, 0, &[])
    };
    for (settings, expected) in [
        (batching(4, 0, &[]), Some(0)),
        (batching(4, 5, &[]), None),
        (target, Some(0)),
        (order, None),
    ] {
        let mut scene = Scene::new(settings);
        let request = scene.request(1);
        assert_eq!(scene.batcher.direct(&request), expected);
        scene.rows(0, &[1]);
        assert_eq!(scene.batcher.direct(&request), None, "somebody is in line");
    }
}

#[test]
fn the_earliest_due_goes_first() {
    let mut scene = learned(40);
    let urgent = Request {
        deadline: scene.at(6),
        ..scene.request(1)
    };
    scene.rows(0, &[20]);
    scene.arrive(0, urgent).expect("there is room");
    assert_eq!(scene.next(0), Some(vec![1]));
}

#[test]
fn what_is_late_anyway_does_not_make_the_others_late() {
    let mut scene = learned(20);
    scene.rows(0, &[1]);
    scene.rows(19, &[1; 8]);
    assert_eq!(scene.next(19), Some((1..=8).collect()));
    scene.batcher.done(0);
    assert_eq!(scene.next(25), Some(vec![0]), "it is answered all the same");
}
