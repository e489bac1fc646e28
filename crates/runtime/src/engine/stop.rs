use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

type Action = Box<dyn Fn() + Send>;

/// Tells a running call that nobody waits for it. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    set: bool,
    /// One call runs at a time, so one action is enough.
    action: Option<Action>,
}

impl Stop {
    /// Ends the call, now or as soon as it starts.
    pub fn set(&self) {
        let mut state = self.0.lock();
        state.set = true;
        if let Some(action) = &state.action {
            action();
        }
    }

    pub fn is_set(&self) -> bool {
        self.0.lock().set
    }

    /// What ends the call while the guard lives; done at once if the call is stopped already. `action` must not block and
    /// must not use this `Stop`.
    pub fn on_set(&self, action: impl Fn() + Send + 'static) -> Guard {
        let mut state = self.0.lock();
        if state.set {
            action();
        }
        state.action = Some(Box::new(action));
        Guard(self.clone())
    }
}

/// Keeps an action of [`Stop::on_set`].
#[derive(Debug)]
pub struct Guard(Stop);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.lock().action = None;
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("set", &self.is_set()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_action_is_done_while_its_guard_lives_and_when_it_comes_late() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = || {
            let done = Arc::clone(&done);
            move || {
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let stop = Stop::default();
        drop(stop.on_set(count()));
        let _guard = stop.on_set(count());
        stop.set();
        assert_eq!(done.load(Ordering::Relaxed), 1);
        let _late = stop.on_set(count());
        assert_eq!(done.load(Ordering::Relaxed), 2);
        assert!(stop.is_set());
    }
}
