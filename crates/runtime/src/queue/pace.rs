use std::time::Duration;

/// A call of less runs where it is: leaving its thread and coming back takes as long on an idle core, and an async worker
/// may be kept for half a millisecond.
const QUICK: Duration = Duration::from_micros(200);

/// A call of less may keep its caller's thread if another takes over what that thread serves. Nobody hears of a caller
/// who leaves meanwhile, so this is also how long a lane may run for nobody; of longer calls the way through a compute
/// thread is a hundredth at most.
pub(super) const SHORT: Duration = Duration::from_millis(20);

/// So many calls one after the other are no accident.
const CALLS: u32 = 16;

/// A longer streak counts no more: three longer calls end any.
const CALLS_MAX: u32 = 4 * CALLS;

/// Up to so many times its bound, a call may have met the machine's bad moment and ends no long streak by itself.
const OUTLIER: u32 = 4;

/// How long a model's calls take that come one by one.
#[derive(Debug)]
pub(super) struct Paces {
    quick: Streak,
    short: Streak,
}

/// What is expected of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is over before others could take it.
    Quick,
    Short,
    Unknown,
}

/// Calls since some took longer.
#[derive(Debug)]
struct Streak {
    within: Duration,
    calls: u32,
    /// The largest inputs among them.
    bytes: usize,
}

impl Default for Paces {
    fn default() -> Self {
        let streak = |within| Streak {
            within,
            calls: 0,
            bytes: 0,
        };
        Self {
            quick: streak(QUICK),
            short: streak(SHORT),
        }
    }
}

impl Paces {
    pub(super) fn learn(&mut self, bytes: usize, took: Duration) {
        self.quick.learn(bytes, took);
        self.short.learn(bytes, took);
    }

    pub(super) fn expected(&self, bytes: usize) -> Pace {
        if self.quick.expects(bytes) {
            Pace::Quick
        } else if self.short.expects(bytes) {
            Pace::Short
        } else {
            Pace::Unknown
        }
    }
}

impl Streak {
    fn learn(&mut self, bytes: usize, took: Duration) {
        if took > self.within * OUTLIER {
            (self.calls, self.bytes) = (0, 0);
        } else if took > self.within {
            self.calls /= 2;
        } else {
            self.calls = (self.calls + 1).min(CALLS_MAX);
            self.bytes = self.bytes.max(bytes);
        }
    }

    /// Of calls that are larger than all before nothing is known.
    fn expects(&self, bytes: usize) -> bool {
        self.calls >= CALLS && bytes <= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_pace_that_all_its_last_calls_had() {
        let mut paces = Paces::default();
        let mut learn = |count: u32, bytes, took| {
            for _ in 0..count {
                paces.learn(bytes, took);
            }
            [paces.expected(8), paces.expected(64)]
        };
        use Pace::{Quick, Short, Unknown};
        assert_eq!(learn(CALLS - 1, 8, QUICK), [Unknown, Unknown]);
        assert_eq!(learn(1, 8, QUICK), [Quick, Unknown]);
        assert_eq!(learn(1, 64, Duration::ZERO), [Quick, Quick]);
        assert_eq!(learn(1, 8, SHORT), [Short, Short]);
        assert_eq!(learn(CALLS, 8, Duration::ZERO), [Quick, Short]);
        assert_eq!(learn(1, 8, SHORT * (OUTLIER + 1)), [Unknown, Unknown]);
        assert_eq!(learn(CALLS, 8, SHORT), [Short, Unknown]);
    }

    #[test]
    fn a_bad_moment_ends_no_long_streak() {
        let mut streak = Paces::default().short;
        let mut learn = |count: u32, took| {
            for _ in 0..count {
                streak.learn(8, took);
            }
            streak.expects(8)
        };
        assert!(learn(CALLS, SHORT));
        assert!(!learn(1, SHORT * 2), "too little is known");
        assert!(learn(1_000, SHORT));
        for _ in 0..10 {
            assert!(learn(1, SHORT * 2));
            assert!(learn(CALLS * 2, SHORT));
        }
        assert!(!learn(3, SHORT * 2), "it has become slower");
    }
}
