//! Ending a call from outside. The library hears that only while a call runs: what it is told just before is lost.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long after a call began the library may still be on its way into it; it takes microseconds.
const REPEATS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// One call that may be ended. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The call is over: what ends it now would end the lane's next one.
    over: Mutex<bool>,
    told: Condvar,
}

impl Ending {
    /// Ends the call; does not wait. Again and again for a while on a thread of its own, until the call is over.
    pub(super) fn end(&self, cancel: impl Fn() + Send + 'static) {
        if self.repeat(&cancel) {
            return;
        }
        let ending = self.clone();
        let again = move || {
            let mut left = REPEATS;
            while left > 0 && !ending.pause() && !ending.repeat(&cancel) {
                left -= 1;
            }
        };
        let spawned = std::thread::Builder::new()
            .name("cancel".to_owned())
            .spawn(again);
        if let Err(error) = spawned {
            tracing::debug!(%error, "a call that had just begun may run to its end");
        }
    }

    /// Whether the call is over already.
    fn repeat(&self, cancel: &impl Fn()) -> bool {
        let over = self.0.over.lock();
        if !*over {
            cancel();
        }
        *over
    }

    /// Waits a little; whether the call is over.
    fn pause(&self) -> bool {
        let mut over = self.0.over.lock();
        if !*over {
            self.0.told.wait_for(&mut over, PAUSE);
        }
        *over
    }

    pub(super) fn over(&self) {
        *self.0.over.lock() = true;
        self.0.told.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A library that hears nothing before its third message.
    #[test]
    fn a_call_is_ended_that_began_a_moment_after_it_was_stopped() {
        let (ending, heard) = (Ending::default(), Arc::new(AtomicU32::new(0)));
        let (says, told) = std::sync::mpsc::channel();
        let count = Arc::clone(&heard);
        ending.end(move || {
            if count.fetch_add(1, Ordering::SeqCst) == 2 {
                says.send(()).expect("the call runs");
            }
        });
        let ended = told.recv_timeout(Duration::from_secs(20));
        assert_eq!(ended, Ok(()));
        ending.over();
        let last = heard.load(Ordering::SeqCst);
        ending.end(|| unreachable!("the lane runs another call now"));
        assert_eq!(heard.load(Ordering::SeqCst), last);
    }
}
