use proptest::prelude::*;

use super::*;
use crate::testing::{ms, start};

const LENGTH: u64 = 6_400;

fn window(limit: u64) -> (Window, Instant) {
    let now = start();
    (Window::new(limit, ms(LENGTH)), now)
}

/// All that was let through, and what it counts for now.
#[derive(Default)]
struct Log(Vec<(Instant, u64)>);

impl Log {
    fn within(&self, end: Instant) -> u64 {
        let inside = |at: &Instant| *at <= end && end.saturating_duration_since(*at) < ms(LENGTH);
        let counted = self.0.iter().filter(|(at, _)| inside(at));
        counted.map(|(_, amount)| amount).sum()
    }
}

#[test]
fn a_hundred_of_a_thousand_pass_however_they_are_spread() {
    for (apart_us, passed) in [(0, 100), (1, 100), (6_399, 100), (6_400, 100)] {
        let (mut window, start) = window(100);
        let through = (0..1000)
            .filter(|turn| {
                let now = start + Duration::from_micros(apart_us * turn);
                window.take(now, 1).is_ok()
            })
            .count();
        assert_eq!(through, passed, "{apart_us} us apart");
    }
}

#[test]
fn what_has_left_the_window_is_free_a_part_later() {
    let (mut window, start) = window(10);
    window.take(start, 10).expect("it is empty");
    let TooMuch { wait } = window.take(start + ms(50), 1).expect_err("it is full");
    assert_eq!(wait, ms(LENGTH + 100 - 50));
    assert_eq!(window.remaining(start + ms(LENGTH + 99)), 0);
    assert_eq!(window.remaining(start + ms(LENGTH + 100)), 10);
}

#[test]
fn less_is_given_back_and_more_is_owed() {
    let (mut window, start) = window(100);
    let taken = window.take(start, 80).expect("it is empty");
    window.settle(start + ms(500), taken, 30);
    assert_eq!(window.remaining(start + ms(500)), 70);
    let taken = window.take(start + ms(500), 70).expect("as much is left");
    window.settle(start + ms(1000), taken, 90);
    assert_eq!(window.remaining(start + ms(1000)), 0);
    assert!(window.take(start + ms(1000), 1).is_err());
    let late = start + ms(500 + LENGTH + 100);
    assert_eq!(
        window.remaining(late),
        80,
        "20 were taken when they were known"
    );
    window.settle(late, taken, 0);
    assert_eq!(
        window.remaining(late),
        80,
        "what is back is not given back again"
    );
}

#[test]
fn more_than_the_limit_waits_for_an_empty_window() {
    let (mut window, start) = window(10);
    let taken = window.take(start, 1_000_000).expect("it is empty");
    assert_eq!(window.remaining(start), 0);
    window.settle(start, taken, 4);
    assert_eq!(window.remaining(start), 6);
    assert!(window.take(start, 1_000_000).is_err());
    assert!(window.take(start + ms(LENGTH + 100), 1_000_000).is_ok());
}

#[test]
fn a_ticket_of_another_window_gives_nothing_back() {
    let (mut before, start) = window(10);
    let taken = before.take(start, 10).expect("it is empty");
    let mut after = Window::new(10, ms(LENGTH));
    after.take(start + ms(2), 10).expect("it is empty");
    after.settle(start + ms(3), taken, 0);
    assert_eq!(after.remaining(start + ms(3)), 0);
}

#[test]
fn a_clock_read_late_is_no_step_back() {
    let (mut window, start) = window(10);
    assert_eq!(window.remaining(start), 10);
    window.take(start + ms(1000), 5).expect("it is empty");
    assert_eq!(window.remaining(start), 5);
    assert!(window.take(start, 6).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_window_holds_more_than_the_limit(
        limit in 1u64..200,
        steps in prop::collection::vec(
            (0u64..900, 1u64..60, 0u64..60, any::<Option<prop::sample::Index>>()),
            1..200,
        ),
    ) {
        let (mut window, mut now) = window(limit);
        let mut log = Log::default();
        let mut open = Vec::new();
        for (later, amount, actual, settles) in steps {
            now += ms(later);
            if let Ok(taken) = window.take(now, amount) {
                log.0.push((now, amount.min(limit)));
                open.push((log.0.len() - 1, taken));
            }
            prop_assert!(log.within(now) <= limit);
            if let Some(which) = settles.filter(|_| !open.is_empty()) {
                let (at, taken) = open.swap_remove(which.index(open.len()));
                let actual = actual.min(taken.amount);
                window.settle(now, taken, actual);
                log.0[at].1 = actual;
            }
            prop_assert!(log.within(now) <= limit);
            prop_assert!(window.remaining(now) <= limit - log.within(now));
        }
    }

    #[test]
    fn whoever_waits_as_told_is_let_through(
        limit in 1u64..200,
        steps in prop::collection::vec((0u64..900, 1u64..250), 1..100),
    ) {
        let (mut window, mut now) = window(limit);
        for (later, amount) in steps {
            now += ms(later);
            if let Err(TooMuch { wait }) = window.take(now, amount) {
                prop_assert!(wait <= ms(LENGTH + LENGTH / 64));
                if !wait.is_zero() {
                    prop_assert!(window.take(now + wait - Duration::from_nanos(1), amount).is_err());
                }
                now += wait;
                prop_assert!(window.take(now, amount).is_ok(), "{wait:?}");
            }
            let empty = now + window.reset(now);
            prop_assert_eq!(window.remaining(empty), limit);
            now = empty.max(now);
        }
    }
}
