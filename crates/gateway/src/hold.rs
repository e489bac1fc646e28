//! Requests that wait for a target that is on its way, in the order in which they came.
//!
//! Whenever something may have changed, the first in line is called; when it has looked, it calls the next. So those that
//! came first are first at the target, and a request that still finds nobody keeps its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use telemetry::metrics::Gauge;
use tokio::sync::Notify;

use crate::snapshot::Snapshot;
use crate::upstream::Wire;

/// Requests that wait at a time, all together; one more is refused at once. Their bodies count as all bodies do.
const HELD_MAX: usize = 1024;

/// For targets that are starting or loading, where nobody has said how long.
const HOLD: Duration = Duration::from_secs(10);

/// How long a request for this model may wait, while nobody who has it is ready. None if waiting is of no use.
pub(crate) fn limit(snapshot: &Snapshot, model: &str, wire: Wire) -> Option<Duration> {
    let group = snapshot.group(model);
    let limit = match group.plan.hold {
        Some(limit) => limit,
        None => {
            let mut upstreams = group.candidates();
            let loading = upstreams.any(|upstream| upstream.speaks(wire) && upstream.loading());
            if loading || !group.plan.awaited.is_empty() {
                HOLD
            } else {
                Duration::ZERO
            }
        }
    };
    (!limit.is_zero()).then_some(limit)
}

/// The line.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    line: Mutex<Line>,
    waiting: Gauge,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    call: Arc<Notify>,
    /// Whether it was called and has not called the next yet.
    called: bool,
}

/// A place in the line, given up when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    holds: &'a Holds,
    number: u64,
    call: Arc<Notify>,
}

impl Holds {
    pub(crate) fn new(waiting: Gauge) -> Self {
        Self {
            line: Mutex::default(),
            waiting,
        }
    }

    /// The last place; none when the line is as long as it may be.
    pub(crate) fn enter(&self) -> Option<Held<'_>> {
        let mut line = self.line.lock();
        if line.waiting.len() >= HELD_MAX {
            return None;
        }
        let number = line.next;
        line.next += 1;
        let call = Arc::new(Notify::new());
        let place = Place {
            call: Arc::clone(&call),
            called: false,
        };
        line.waiting.insert(number, place);
        self.waiting.inc();
        Some(Held {
            holds: self,
            number,
            call,
        })
    }

    /// Something may have changed: everybody in line looks again.
    pub(crate) fn release(&self) {
        call(&mut self.line.lock(), 0);
    }
}

/// Calls the first one from this number on. One that was called already will call the next itself.
fn call(line: &mut Line, from: u64) {
    if let Some((_, place)) = line.waiting.range_mut(from..).next()
        && !std::mem::replace(&mut place.called, true)
    {
        place.call.notify_one();
    }
}

impl Held<'_> {
    /// Waits to be called. Cancel-safe.
    pub(crate) async fn called(&self) {
        self.call.notified().await;
    }

    /// It has looked and found nobody: the next one's turn.
    pub(crate) fn pass(&self) {
        let mut line = self.holds.line.lock();
        let place = line.waiting.get_mut(&self.number);
        if place.is_some_and(|place| std::mem::take(&mut place.called)) {
            call(&mut line, self.number + 1);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.holds.waiting.dec();
        let mut line = self.holds.line.lock();
        let place = line.waiting.remove(&self.number);
        if place.is_some_and(|place| place.called) {
            call(&mut line, self.number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_called(held: &Held<'_>) -> bool {
        let mut called = std::pin::pin!(held.called());
        let cx = &mut Context::from_waker(Waker::noop());
        called.as_mut().poll(cx) == Poll::Ready(())
    }

    #[test]
    fn the_line_is_called_in_order_and_who_leaves_calls_the_next() {
        let holds = Holds::default();
        let enter = || holds.enter().expect("room");
        let (first, second, third) = (enter(), enter(), enter());
        holds.release();
        assert!(is_called(&first) && !is_called(&second) && !is_called(&third));
        first.pass();
        assert!(
            is_called(&second) && !is_called(&third),
            "the first still found nobody"
        );
        drop(second);
        assert!(is_called(&third));
        third.pass();
        assert!(!is_called(&first), "once through the line");
        holds.release();
        assert!(is_called(&first));
        drop((first, third));
        assert!(holds.line.lock().waiting.is_empty());
    }

    #[test]
    fn the_line_has_an_end() {
        let holds = Holds::default();
        let all: Vec<_> = (0..HELD_MAX).filter_map(|_| holds.enter()).collect();
        assert_eq!(all.len(), HELD_MAX);
        assert!(holds.enter().is_none());
        drop(all);
        assert!(holds.enter().is_some());
    }
}
