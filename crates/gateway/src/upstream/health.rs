use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::resource::OutlierSpec;
use routing::retry::Blame;
use routing::{Breaker, BreakerRules, Caller, Standing};

/// Who says "later" is left alone until then, but not for ever: openai-python takes more than two minutes for a mistake.
const HOLD_MAX: Duration = Duration::from_secs(120);

/// How long one request may find out whether a broken upstream works again before another may.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Whether an upstream should get requests. While all is well, asking costs one read.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether there is anything to look at.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    held_until: Option<Instant>,
    /// Why its own report or a check speaks against it.
    ill: Option<String>,
}

impl Health {
    /// False: it gets this caller's request only if nobody else can answer.
    pub(crate) fn sound(&self, caller: Caller, now: Instant) -> bool {
        if !self.troubled.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.state.lock();
        state.held_until = state.held_until.filter(|until| now < *until);
        self.note(&state);
        state.held_until.is_none()
            && state.ill.is_none()
            && state.breaker.standing(caller, now) != Standing::Open
    }

    /// A request is on its way there; if it is the one that finds out whether the upstream works, others are not.
    pub(crate) fn entered(&self, now: Instant) {
        if self.troubled.load(Ordering::Relaxed) {
            self.state.lock().breaker.probe(now, PROBE_PATIENCE);
        }
    }

    /// An attempt ended. True if that was one failure too many.
    pub(crate) fn ended(
        &self,
        blame: Blame,
        caller: Option<Caller>,
        now: Instant,
        spec: &OutlierSpec,
    ) -> bool {
        if blame != Blame::Upstream && !self.troubled.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state.lock();
        let opened = state.breaker.record(blame, caller, now, &rules(spec));
        self.note(&state);
        opened
    }

    /// It asked to be left alone.
    pub(crate) fn hold(&self, now: Instant, wait: Duration) {
        let until = now + wait.min(HOLD_MAX);
        let mut state = self.state.lock();
        state.held_until = Some(state.held_until.map_or(until, |before| before.max(until)));
        self.note(&state);
    }

    /// What a health check found: nothing, or why it should get no requests. Whether the breaker closes is up to a
    /// request; but it may be tried at once.
    pub(crate) fn checked(&self, ill: Option<String>, now: Instant) {
        if ill.is_none() && !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        if ill.is_none() && state.ill.is_some() {
            state.breaker.may_probe(now);
        }
        state.ill = ill;
        self.note(&state);
    }

    /// Why it is passed over now; empty if it is not.
    pub(crate) fn reason(&self, now: Instant) -> String {
        if !self.troubled.load(Ordering::Relaxed) {
            return String::new();
        }
        let state = self.state.lock();
        if let Some(ill) = &state.ill {
            return ill.clone();
        }
        if let Some(until) = state.held_until.filter(|until| now < *until) {
            let seconds = until.saturating_duration_since(now).as_secs_f32();
            return format!("it asked not to be asked for another {seconds:.1} s");
        }
        match state.breaker.closed_to_all(now) {
            true => "it failed too often a moment ago".to_owned(),
            false => String::new(),
        }
    }

    fn note(&self, state: &State) {
        let troubled =
            !state.breaker.at_rest() || state.held_until.is_some() || state.ill.is_some();
        self.troubled.store(troubled, Ordering::Relaxed);
    }
}

fn rules(spec: &OutlierSpec) -> BreakerRules {
    BreakerRules {
        consecutive: spec.consecutive,
        failure_percent: spec.failure_percent,
        requests_min: spec.requests_min,
        window: Duration::from_millis(spec.window_ms),
        open: Duration::from_millis(spec.open_ms),
        open_max: Duration::from_millis(spec.open_max_ms),
    }
}

#[cfg(test)]
mod tests {
    use base::Clock;

    use super::*;

    const ANNE: Caller = Caller(1);
    const BOB: Caller = Caller(2);

    #[test]
    fn who_asks_to_be_left_alone_is_left_alone_as_long_and_no_longer() {
        let start = Clock::manual().now();
        for (said, waited) in [(2, 2), (600, 120)] {
            let health = Health::default();
            health.hold(start, Duration::from_secs(said));
            // A shorter word later does not shorten it.
            health.hold(start, Duration::from_secs(1));
            let end = start + Duration::from_secs(waited);
            assert!(!health.sound(ANNE, end - Duration::from_millis(1)));
            assert!(health.reason(start).contains("asked not to be asked"));
            assert!(health.sound(ANNE, end));
            assert_eq!(health.reason(end), "");
        }
    }

    #[test]
    fn a_passed_check_ends_an_illness_and_leaves_the_breaker_to_a_request() {
        let (start, health) = (Clock::manual().now(), Health::default());
        let spec = OutlierSpec::default();
        for _ in 0..5 {
            health.ended(Blame::Upstream, None, start, &spec);
        }
        health.checked(Some("it answered 500 to /health".to_owned()), start);
        assert!(!health.sound(ANNE, start));
        health.checked(None, start);
        assert!(health.sound(ANNE, start), "it may be probed");
        health.entered(start);
        assert!(!health.sound(BOB, start), "by one");
        health.ended(Blame::Praise, Some(ANNE), start, &spec);
        assert!(health.sound(BOB, start));
        assert!(!health.troubled.load(Ordering::Relaxed));
    }

    #[test]
    fn one_callers_failures_leave_the_others_alone() {
        let (start, health) = (Clock::manual().now(), Health::default());
        for _ in 0..100 {
            health.ended(Blame::Upstream, Some(ANNE), start, &OutlierSpec::default());
        }
        assert!(!health.sound(ANNE, start));
        assert!(health.sound(BOB, start));
        assert_eq!(health.reason(start), "", "not down for all");
    }
}
