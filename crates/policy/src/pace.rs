use std::time::{Duration, Instant};

/// How often a place becomes free while requests wait for one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// The latest time that somebody left while others waited.
    latest: Option<Instant>,
    /// Between two who leave: a moving mean.
    interval: Option<Duration>,
    seen: u32,
}

/// Of a new interval, the part that counts.
const WEIGHT: u32 = 8;

/// Before so many intervals nothing is foretold.
const SEEN_MIN: u32 = 4;

impl Pace {
    pub(crate) fn left(&mut self, now: Instant, others_wait: bool) {
        if let Some(latest) = self.latest {
            let interval = now.saturating_duration_since(latest);
            self.seen = self.seen.saturating_add(1);
            self.interval = Some(match self.interval {
                None => interval,
                Some(mean) => mean - mean / WEIGHT + interval / WEIGHT,
            });
        }
        self.latest = others_wait.then_some(now);
    }

    /// When whoever has `ahead` before it gets its turn; None if too little has been seen to say.
    pub(crate) fn wait(&self, ahead: usize) -> Option<Duration> {
        let interval = self.interval.filter(|_| self.seen >= SEEN_MIN)?;
        let turns = u32::try_from(ahead.saturating_add(1)).unwrap_or(u32::MAX);
        Some(interval.saturating_mul(turns))
    }
}

#[cfg(test)]
mod tests {
    use base::Clock;

    use super::*;

    #[test]
    fn the_wait_is_foretold_from_who_leaves_while_others_wait() {
        let clock = Clock::manual();
        let mut pace = Pace::default();
        for seen in 0..5 {
            assert_eq!(pace.wait(9).is_some(), seen > 4, "{seen}");
            pace.left(clock.now(), true);
            clock.advance(Duration::from_millis(10));
        }
        assert_eq!(pace.wait(0), Some(Duration::from_millis(10)));
        assert_eq!(pace.wait(9), Some(Duration::from_millis(100)));
        pace.left(clock.now(), false);
        clock.advance(Duration::from_secs(3600));
        pace.left(clock.now(), true);
        let idle = pace.wait(0);
        assert_eq!(
            idle,
            Some(Duration::from_millis(10)),
            "idle times do not count"
        );
    }
}
