//! What probes mean. Pure: answers and moments in, changes out.

use std::time::{Duration, Instant};

/// Probes in a row that may fail before a ready process counts as unwell: one can be lost in a long pause.
const FAILURES_MAX: u32 = 3;

#[derive(Debug)]
pub(super) struct Health {
    /// Longest time without readiness.
    patience: Duration,
    /// Since when it is not ready, or was started.
    unready_since: Instant,
    ready_since: Option<Instant>,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Ready {
        after: Duration,
    },
    Unwell {
        reason: String,
    },
    /// It has had its time.
    GivenUp {
        reason: String,
    },
}

impl Health {
    pub(super) fn new(now: Instant, patience: Duration) -> Self {
        Self {
            patience,
            unready_since: now,
            ready_since: None,
            failures: 0,
        }
    }

    pub(super) fn ready(&self) -> bool {
        self.ready_since.is_some()
    }

    /// How long it has been ready without a break.
    pub(super) fn ready_for(&self, now: Instant) -> Duration {
        self.ready_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub(super) fn take(&mut self, answer: Result<(), String>, now: Instant) -> Change {
        match answer {
            Ok(()) => {
                self.failures = 0;
                if self.ready() {
                    return Change::None;
                }
                self.ready_since = Some(now);
                let after = now.saturating_duration_since(self.unready_since);
                Change::Ready { after }
            }
            Err(reason) if self.ready() => {
                self.failures += 1;
                if self.failures < FAILURES_MAX {
                    return Change::None;
                }
                self.ready_since = None;
                self.unready_since = now;
                Change::Unwell { reason }
            }
            Err(reason) => {
                let waited = now.saturating_duration_since(self.unready_since);
                if waited < self.patience {
                    return Change::None;
                }
                let reason = format!("not ready for {} s: {reason}", waited.as_secs());
                Change::GivenUp { reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Clock;

    use super::*;

    #[test]
    fn readiness_is_gained_by_one_answer_and_lost_by_three_silences() {
        let clock = Clock::manual();
        let mut health = Health::new(clock.now(), Duration::from_secs(10));
        let mut step = |answer: Result<(), &str>| {
            clock.advance(Duration::from_secs(1));
            health.take(answer.map_err(str::to_owned), clock.now())
        };
        let silence = || "silence".to_owned();
        assert_eq!(step(Err("refused")), Change::None);
        let after = Duration::from_secs(2);
        assert_eq!(step(Ok(())), Change::Ready { after });
        for answer in [
            Ok(()),
            Err("silence"),
            Err("silence"),
            Ok(()),
            Err("silence"),
            Err("silence"),
        ] {
            assert_eq!(step(answer), Change::None);
        }
        assert_eq!(step(Err("silence")), Change::Unwell { reason: silence() });
        let after = Duration::from_secs(1);
        assert_eq!(step(Ok(())), Change::Ready { after });
        assert_eq!(health.ready_for(clock.now()), Duration::ZERO);
    }

    #[test]
    fn patience_ends() {
        let clock = Clock::manual();
        let mut health = Health::new(clock.now(), Duration::from_secs(2));
        clock.advance(Duration::from_secs(1));
        assert_eq!(health.take(Err("503".into()), clock.now()), Change::None);
        clock.advance(Duration::from_secs(1));
        let reason = "not ready for 2 s: 503".to_owned();
        assert_eq!(
            health.take(Err("503".into()), clock.now()),
            Change::GivenUp { reason }
        );
    }
}
