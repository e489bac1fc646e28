use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::alarm::Set;

/// Whether anything is asked on one connection, and since when not; whether its client takes what it asked for.
///
/// hyper has a time limit of its own for a request's head. It arms a timer for every request, and each one that is due
/// before the runtime's next wakes the runtime's poller: measured, one write, one wake-up and half the context switches
/// of a relayed request. This notes a few moments instead, and the connection looks at them once in a while.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    in_flight: u32,
    /// Requests so far.
    asked: u64,
    /// When the last request settled or the client last took bytes after a pause; before that, when the connection
    /// opened.
    idle_since: Instant,
    /// Since when bytes wait that the client's socket does not take.
    blocked_since: Option<Instant>,
    /// How long they waited before, all together.
    blocked: Duration,
    /// The timer of the request before, for the next one.
    timer: Option<Set>,
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            in_flight: 0,
            asked: 0,
            idle_since: now,
            blocked_since: None,
            blocked: Duration::ZERO,
            timer: None,
        })))
    }

    /// A request begins. It gets the timer of an earlier one, if no other has it.
    pub(crate) fn begin(&self) -> Option<Set> {
        let mut state = self.0.lock();
        state.in_flight += 1;
        state.asked += 1;
        state.timer.take()
    }

    pub(crate) fn end(&self, now: Instant, timer: Option<Set>) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        state.idle_since = now;
        if state.timer.is_none() {
            state.timer = timer;
        }
    }

    /// Requests so far, and whether one of them runs.
    pub(crate) fn asked(&self) -> (u64, bool) {
        let state = self.0.lock();
        (state.asked, state.in_flight > 0)
    }

    /// The client's socket takes no more for now.
    pub(crate) fn blocked(&self, now: Instant) {
        self.0.lock().blocked_since = Some(now);
    }

    pub(crate) fn unblocked(&self, now: Instant) {
        let mut state = self.0.lock();
        if let Some(since) = state.blocked_since.take() {
            state.blocked += now.saturating_duration_since(since);
        }
        state.idle_since = now;
    }

    /// How long nothing has been asked; a head that is still arriving counts as nothing. A connection is not idle while
    /// its client has yet to take the end of an answer, which has settled by then.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        let state = self.0.lock();
        if state.in_flight > 0 || state.blocked_since.is_some() {
            Duration::ZERO
        } else {
            now.saturating_duration_since(state.idle_since)
        }
    }

    /// How long the client has taken nothing of what waits for it; none if nothing waits.
    pub(crate) fn stalled(&self, now: Instant) -> Option<Duration> {
        let since = self.0.lock().blocked_since?;
        Some(now.saturating_duration_since(since))
    }
    /// How long the client's socket has taken nothing, all times together.
    pub(crate) fn stalled_in_all(&self, now: Instant) -> Duration {
        let state = self.0.lock();
        let current = state.blocked_since;
        let current = current.map(|since| now.saturating_duration_since(since));
        state.blocked + current.unwrap_or_default()
    }
}
