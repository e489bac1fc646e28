//! One thread that does things at a given moment: batches are held back and requests time out to the tenth of a
//! millisecond, whatever runs. The timers of the async workers are rounded to whole milliseconds.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use base::Clock;
use parking_lot::{Condvar, Mutex};

type Action = Box<dyn FnOnce() + Send>;

/// Cheap to clone; the thread ends when the last clone is gone. What is due is as much as has been asked for: one alarm
/// per queue and one per batch in its artificial delay.
#[derive(Debug, Clone)]
pub(crate) struct Timer(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Shared>);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    due: BTreeMap<(Instant, u64), Action>,
    next: u64,
    stopping: bool,
}

/// Something that will be done, unless this is dropped before.
pub(crate) struct Alarm {
    shared: Arc<Shared>,
    key: (Instant, u64),
}

impl Timer {
    pub(crate) fn start(clock: Clock) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("timer".to_owned())
            .spawn(move || thread.serve())?;
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// `action` must be short: it keeps all others waiting.
    pub(crate) fn at(&self, at: Instant, action: impl FnOnce() + Send + 'static) -> Alarm {
        let shared = &self.0.0;
        let mut state = shared.state.lock();
        let key = (at, state.next);
        state.next += 1;
        state.due.insert(key, Box::new(action));
        let first = state.due.first_key_value().map(|(first, _)| *first);
        drop(state);
        if first == Some(key) {
            shared.wake.notify_one();
        }
        Alarm {
            shared: Arc::clone(shared),
            key,
        }
    }
}

impl Alarm {
    pub(crate) fn at(&self) -> Instant {
        self.key.0
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let action = self.shared.state.lock().due.remove(&self.key);
        // Outside the lock: what the action holds may set or drop an alarm of its own.
        drop(action);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state.lock().stopping = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        while !state.stopping {
            let Some(((at, _), _)) = state.due.first_key_value() else {
                self.wake.wait(&mut state);
                continue;
            };
            let left = at.saturating_duration_since(self.clock.now());
            if !left.is_zero() {
                self.wake.wait_for(&mut state, left);
                continue;
            }
            let Some((_, action)) = state.due.pop_first() else {
                continue;
            };
            drop(state);
            if catch_unwind(AssertUnwindSafe(action)).is_err() {
                tracing::error!("work on the timer thread panicked");
            }
            state = self.state.lock();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("at", &self.key.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn things_are_done_in_the_order_of_their_time_unless_dropped() {
        let clock = Clock::real();
        let timer = Timer::start(clock.clone()).expect("starts");
        let (done, order) = mpsc::channel();
        let alarm = |ms| {
            let done = done.clone();
            timer.at(clock.now() + Duration::from_millis(ms), move || {
                done.send(ms).expect("somebody listens");
            })
        };
        let _alarms = [alarm(30), alarm(10)];
        drop(alarm(20));
        let wait = Duration::from_secs(60);
        assert_eq!(order.recv_timeout(wait), Ok(10));
        assert_eq!(order.recv_timeout(wait), Ok(30));
        assert!(order.try_recv().is_err());
    }
}
