use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Where time comes from. Real in production; in tests and the simulator it moves only when told to.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Real,
    Manual {
        origin: Instant,
        wall: SystemTime,
        elapsed: Arc<Mutex<Duration>>,
    },
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the machine's clocks"
)]
impl Clock {
    pub fn real() -> Self {
        Self(Source::Real)
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn manual() -> Self {
        Self(Source::Manual {
            origin: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
            elapsed: Arc::new(Mutex::new(Duration::ZERO)),
        })
    }

    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::Real => Instant::now(),
            Source::Manual {
                origin, elapsed, ..
            } => *origin + *elapsed.lock(),
        }
    }

    /// Wall time, for records and documents; never for measuring.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::Real => SystemTime::now(),
            Source::Manual { wall, elapsed, .. } => *wall + *elapsed.lock(),
        }
    }

    /// Moves a manual clock; a real clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed, .. } = &self.0 {
            *elapsed.lock() += by;
        }
    }
}

/// The moment after which nobody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(now: Instant, budget: Duration) -> Self {
        Self(now + budget)
    }

    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero when passed.
    pub fn left(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    pub fn passed(self, now: Instant) -> bool {
        now >= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual();
        let start = clock.now();
        let deadline = Deadline::after(start, Duration::from_millis(5));
        assert_eq!(clock.now(), start);
        assert!(!deadline.passed(clock.now()));
        clock.advance(Duration::from_millis(4));
        assert_eq!(deadline.left(clock.now()), Duration::from_millis(1));
        clock.advance(Duration::from_millis(4));
        assert!(deadline.passed(clock.now()));
        assert_eq!(deadline.left(clock.now()), Duration::ZERO);
    }
}
