use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Whether anything is asked on one connection, and since when not.
///
/// hyper has a time limit of its own for a request's head. It arms a timer for every request, and each one that is due
/// before the runtime's next wakes the runtime's poller: measured, one write, one wake-up and half the context switches
/// of a relayed request. This notes two moments instead, and the connection looks at them once in a while.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    in_flight: u32,
    /// When the last request settled; when the connection opened, before the first.
    idle_since: Instant,
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            in_flight: 0,
            idle_since: now,
        })))
    }

    pub(crate) fn begin(&self) {
        self.0.lock().in_flight += 1;
    }

    pub(crate) fn end(&self, now: Instant) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        state.idle_since = now;
    }

    /// How long nothing has been asked; a head that is still arriving counts as nothing.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        let state = self.0.lock();
        if state.in_flight > 0 {
            Duration::ZERO
        } else {
            now.saturating_duration_since(state.idle_since)
        }
    }
}
