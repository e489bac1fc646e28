use proptest::prelude::*;

use super::*;
use crate::testing::{ms, start};

fn limits(requests: Option<u64>, tokens: Option<u64>, max_in_flight: Option<u32>) -> LimitsSpec {
    LimitsSpec {
        requests,
        tokens,
        max_in_flight,
        ..LimitsSpec::default()
    }
}

#[test]
fn each_limit_says_what_it_is_and_when_to_come_back() {
    let now = start();
    let mut account = Account::new(&limits(Some(2), Some(1000), Some(3)));
    let first = account.enter(now).expect("the first");
    account.enter(now).expect("the second");
    let over = account.enter(now).expect_err("the third");
    assert_eq!(
        (over.what, over.limit, over.window),
        (What::Requests, 2, ms(60_000))
    );
    account.withdraw(now, first);
    account.enter(now).expect("one was none");
    let over = account.enter(now).expect_err("three are inside");
    assert_eq!((over.what, over.limit), (What::InFlight, 3));
    let ask = Ask {
        bytes: 3,
        output_max: Some(600),
        choices: 1,
    };
    account.reserve(now, &ask).expect("it fits");
    let over = account.reserve(now, &ask).expect_err("it does not");
    assert_eq!((over.what, over.limit), (What::Tokens, 1000));
    assert!(over.wait > ms(60_000) && over.wait <= ms(61_000));
    assert_eq!(
        account.room(now).tokens.expect("limited").remaining,
        1000 - 618
    );
}

#[test]
fn a_change_of_limits_keeps_what_was_used() {
    let now = start();
    let mut account = Account::new(&limits(Some(10), None, None));
    for _ in 0..8 {
        account.enter(now).expect("ten may");
    }
    account.change(&limits(Some(9), Some(50), Some(9)));
    let room = account.room(now);
    assert_eq!(room.requests.expect("limited").remaining, 1);
    assert_eq!(room.tokens.expect("limited").remaining, 50);
    account.enter(now).expect("the ninth");
    assert_eq!(
        account.enter(now).expect_err("the tenth").what,
        What::InFlight
    );
    account.change(&LimitsSpec::default());
    account.enter(now).expect("nothing is limited");
    assert_eq!(account.room(now), Room::default());
}

/// Callers who do what a load test does: each asks, runs, settles and asks again.
struct Load {
    account: Account,
    now: Instant,
    /// What was used, and when it was asked for.
    used: Vec<(Instant, u64)>,
    running: Vec<(Instant, Instant, Reserved, Used)>,
}

impl Load {
    fn step(&mut self, ask: &Ask, used: Used, lasts: Duration) {
        if let Ok(Some(reserved)) = self.account.reserve(self.now, ask) {
            self.running
                .push((self.now + lasts, self.now, reserved, used));
        }
        self.now += ms(7);
        let now = self.now;
        let (ended, running): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|run| run.0 <= now);
        self.running = running;
        for (_, asked, reserved, used) in ended {
            self.account.settle(now, reserved, used, true);
            self.used.push((asked, used.total()));
        }
    }

    fn most_in_a_window(&self) -> u64 {
        let from = |start: Instant| {
            let inside = self.used.iter().filter(move |(at, _)| {
                *at >= start && at.saturating_duration_since(start) < ms(10_000)
            });
            inside.map(|(_, tokens)| tokens).sum()
        };
        self.used.iter().map(|(at, _)| from(*at)).max().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn tokens_in_any_window_stay_within_a_hundredth_of_the_limit(
        requests in prop::collection::vec((300u64..6000, 20u64..40, 1u64..400, 1u64..100, 10u64..2000), 400..800),
    ) {
        let now = start();
        let spec = LimitsSpec { window_ms: 10_000, tokens: Some(20_000), ..LimitsSpec::default() };
        let mut load = Load { account: Account::new(&spec), now, used: Vec::new(), running: Vec::new() };
        for (bytes, density, output_max, part, lasts) in requests {
            // From a token in 5 bytes to one in 2.5, and answers of any part of what they may have.
            let used = Used { prompt: bytes * density / 100, output: output_max * part / 100 };
            let ask = Ask { bytes, output_max: Some(output_max), choices: 1 };
            load.step(&ask, used, ms(lasts));
        }
        let most = load.most_in_a_window();
        prop_assert!(most <= 20_200, "{most} tokens in one window");
        prop_assert!(most >= 10_000, "{most} tokens: nearly nothing was let through");
    }
}
