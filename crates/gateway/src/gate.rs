use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Keeps a task that wakes itself from going through the scheduler.
///
/// A client's connection, the handler and the upstream's connection are one task here. They talk over hyper's channels,
/// whose every message wakes "the other side", which is the task that is running. tokio puts a task that was woken
/// while it ran at the end of the queue and rouses an idle worker to fetch it: a system call or two and often a change
/// of core, several times a request. Behind a gate such a wake means one more turn at once.
#[derive(Debug)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
    /// The waker that everything inside gets.
    waker: Waker,
}

#[derive(Debug)]
struct Shared {
    inside: AtomicBool,
    woken: AtomicBool,
    /// The task's own waker.
    outer: Mutex<Waker>,
}

/// Turns before the scheduler gets its due. It must: tokio's budget for one run, once spent, is renewed only there, and
/// until then everything says "woken, but not ready".
const TURNS_MAX: usize = 16;

impl Gate {
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared {
            inside: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            outer: Mutex::new(Waker::noop().clone()),
        });
        Self {
            waker: Waker::from(Arc::clone(&shared)),
            shared,
        }
    }

    /// Polls until the work is done or nothing inside has anything to do.
    pub(crate) fn poll<T>(
        &self,
        cx: &Context<'_>,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let shared = &*self.shared;
        {
            let mut outer = shared.outer.lock();
            if !outer.will_wake(cx.waker()) {
                outer.clone_from(cx.waker());
            }
        }
        let mut inner = Context::from_waker(&self.waker);
        for _ in 0..TURNS_MAX {
            // Before the work: a wake during it must be seen after it.
            shared.inside.store(true, Ordering::SeqCst);
            shared.woken.store(false, Ordering::SeqCst);
            let polled = work(&mut inner);
            // In this order, and the other one in `wake`: either we see `woken`, or it sees that nobody is inside.
            shared.inside.store(false, Ordering::SeqCst);
            if polled.is_ready() || !shared.woken.load(Ordering::SeqCst) {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.inside.load(Ordering::SeqCst) {
            // Cloned, so that no foreign code runs under the lock.
            let outer = self.outer.lock().clone();
            outer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_from_inside_is_another_turn_and_one_from_outside_a_wake() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let gate = Gate::new();
        let mut turns = 0;
        let mut kept = None;
        let polled = gate.poll(&cx, |cx| {
            turns += 1;
            kept = Some(cx.waker().clone());
            if turns < 3 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((turns, count.0.load(Ordering::SeqCst)), (3, 0));
        kept.expect("a waker").wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(gate.poll(&cx, |_| Poll::Ready(())).is_ready());
    }

    #[test]
    fn work_that_never_rests_gives_way_to_others() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut turns = 0;
        let polled = Gate::new().poll(&cx, |cx| {
            turns += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((turns, count.0.load(Ordering::SeqCst)), (TURNS_MAX, 1));
    }

    #[test]
    fn no_wake_from_another_thread_is_lost() {
        let gate = Gate::new();
        for _ in 0..2000 {
            let count = Arc::new(Count::default());
            let waker = Waker::from(Arc::clone(&count));
            let cx = Context::from_waker(&waker);
            let done = Arc::new(AtomicBool::new(false));
            let finished = std::thread::scope(|scope| {
                let mut helper = None;
                let polled = gate.poll(&cx, |cx| {
                    if helper.is_none() {
                        let (done, waker) = (Arc::clone(&done), cx.waker().clone());
                        helper = Some(scope.spawn(move || {
                            done.store(true, Ordering::SeqCst);
                            waker.wake();
                        }));
                    }
                    if done.load(Ordering::SeqCst) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                });
                polled.is_ready()
            });
            // Either it was done in time, or somebody was told to look again.
            assert!(finished || count.0.load(Ordering::SeqCst) == 1);
        }
    }
}
