use std::time::{Duration, Instant};

use base::Clock;

/// A moment to count from.
pub(crate) fn start() -> Instant {
    Clock::manual().now()
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
