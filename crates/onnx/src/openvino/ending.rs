//! Ending a call from outside. The library hears that only while a call runs: what it is told just before is lost.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long after a call began the library may still be on its way into it; it takes microseconds.
const REPEATS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

type Cancel = Box<dyn Fn() + Send>;

/// One call that may be ended. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Ending(Arc<Shared>);

struct Shared {
    /// Ends the call; none once the call is over: what ends it then would end the lane's next one. The only owner of what
    /// it holds, so that nothing of the library outlives the call on a thread that nobody waits for.
    cancel: Mutex<Option<Cancel>>,
    told: Condvar,
}

impl Ending {
    pub(super) fn new(cancel: impl Fn() + Send + 'static) -> Self {
        Self(Arc::new(Shared {
            cancel: Mutex::new(Some(Box::new(cancel))),
            told: Condvar::new(),
        }))
    }

    /// Ends the call; does not wait. Again and again for a while on a thread of its own, until the call is over.
    pub(super) fn end(&self) {
        if self.repeat() {
            return;
        }
        let ending = self.clone();
        let again = move || {
            let mut left = REPEATS;
            while left > 0 && !ending.pause() && !ending.repeat() {
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
    fn repeat(&self) -> bool {
        let cancel = self.0.cancel.lock();
        if let Some(cancel) = cancel.as_ref() {
            cancel();
        }
        cancel.is_none()
    }

    /// Waits a little; whether the call is over.
    fn pause(&self) -> bool {
        let mut cancel = self.0.cancel.lock();
        if cancel.is_some() {
            self.0.told.wait_for(&mut cancel, PAUSE);
        }
        cancel.is_none()
    }

    /// Lets go of what ends the call, on the caller's thread.
    pub(super) fn over(&self) {
        let cancel = self.0.cancel.lock().take();
        drop(cancel);
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
        let heard = Arc::new(AtomicU32::new(0));
        let (says, told) = std::sync::mpsc::channel();
        let count = Arc::clone(&heard);
        let ending = Ending::new(move || {
            if count.fetch_add(1, Ordering::SeqCst) == 2 {
                says.send(()).expect("the call runs");
            }
        });
        ending.end();
        let ended = told.recv_timeout(Duration::from_secs(20));
        assert_eq!(ended, Ok(()));
        ending.over();
        let last = heard.load(Ordering::SeqCst);
        ending.end();
        assert_eq!(
            heard.load(Ordering::SeqCst),
            last,
            "the lane runs another call now"
        );
    }

    /// The lane's thread is the last that holds the lane's objects, however late the thread that repeats looks again.
    #[test]
    fn nothing_is_held_for_a_call_that_is_over() {
        let held = Arc::new(());
        for _ in 0..100 {
            let request = Arc::clone(&held);
            let ending = Ending::new(move || assert!(Arc::strong_count(&request) > 1));
            ending.end();
            ending.over();
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }
}
