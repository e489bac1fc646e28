use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use base::Clock;
use tokio::time::{Sleep, sleep};

/// A timer that is kept from one wait to the next, and from one request of a connection to the next.
///
/// Nearly every wait ends before its time, and tokio takes a lock that all its threads share whenever a timer is set or
/// given up. This one stays set: as long as it rings early enough nobody touches it, and when it rings too early it is set
/// again. With waits of minutes that is once in thousands of requests.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    set: Option<Set>,
}

/// A timer that is set.
#[derive(Debug)]
pub(crate) struct Set {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    /// `set` is what an earlier one had.
    pub(crate) fn new(clock: Clock, set: Option<Set>) -> Self {
        Self { clock, set }
    }

    /// The timer, for the next one.
    pub(crate) fn take(&mut self) -> Option<Set> {
        self.set.take()
    }

    /// Ready once `due` has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        loop {
            if let Some(set) = self.set.as_mut().filter(|set| set.at <= due) {
                ready!(set.timer.as_mut().poll(cx));
            }
            let now = self.clock.now();
            if due <= now {
                return Poll::Ready(());
            }
            self.set(due, due.saturating_duration_since(now));
        }
    }

    /// What `work` comes to, if that is before `due`.
    pub(crate) async fn within<T>(
        &mut self,
        due: Instant,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let ended = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll(cx, due).map(|()| None),
        });
        ended.await
    }

    fn set(&mut self, at: Instant, wait: Duration) {
        let timer = sleep(wait);
        match &mut self.set {
            Some(set) => {
                set.at = at;
                set.timer.set(timer);
            }
            None => {
                let timer = Box::pin(timer);
                self.set = Some(Set { at, timer });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn each_wait_ends_by_its_own_time_whatever_was_waited_for_before() {
        let clock = Clock::real();
        let mut alarm = Alarm::new(clock.clone(), None);
        for wait_ms in [20, 5, 30, 0, 10] {
            let due = clock.now() + Duration::from_millis(wait_ms);
            assert_eq!(alarm.within(due, pending::<()>()).await, None);
            assert!(clock.now() >= due, "{wait_ms} ms");
        }
    }

    #[tokio::test]
    async fn a_timer_that_rings_early_enough_stays() {
        let clock = Clock::real();
        let mut alarm = Alarm::new(clock.clone(), None);
        let start = clock.now();
        let mut set = Vec::new();
        for due_s in [60, 61, 90, 30, 62] {
            let due = start + Duration::from_secs(due_s);
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            assert!(alarm.poll(cx, due).is_pending());
            set.push(alarm.set.as_ref().map(|set| (set.at - start).as_secs()));
            assert_eq!(alarm.within(due, ready(7)).await, Some(7));
        }
        assert_eq!(set, [60, 60, 60, 30, 30].map(Some));
    }
}
