//! Calls that run where they are, on their caller's thread: it costs less than leaving it, and nobody is in line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Deadline;
use batch::Request;

use super::pace::{Pace, SHORT};
use super::{Held, Queue, State};
use crate::call::Call;
use crate::compute::Taken;
use crate::engine::Stop;
use crate::timer::Alarm;

/// Whoever must be answered before so many times the longest that a call should take is answered by another thread, on
/// time whatever the engine does.
const MARGIN: u32 = 5;

/// A lane for a call that runs where it is, and the cores that it keeps busy.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) held: Held,
    pub(crate) cores: Option<Taken>,
    /// Set at the caller's deadline, if the call keeps its thread until then.
    pub(crate) stop: Stop,
    /// The call is long enough for others to need what its thread serves.
    pub(crate) blocks: bool,
}

/// Whether a call may keep the thread it came on for longer than an async worker should be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thread {
    /// Nothing else is done by the caller's task, and another thread can take over the rest.
    MayKeep,
    MustLeave,
}

/// Calls that block their callers' threads, by lane: nobody else tells these callers that their time is over.
#[derive(Default)]
pub(super) struct Blocking {
    calls: BTreeMap<usize, (Instant, Stop)>,
    /// For the first deadline, or an earlier one that has passed in vain.
    alarm: Option<Alarm>,
}

impl Queue {
    pub(crate) fn direct(
        self: &Arc<Self>,
        call: &Call,
        deadline: Deadline,
        thread: Thread,
    ) -> Option<Direct> {
        if !self.loaded.delay().is_zero() || self.limit.is_some() {
            return None;
        }
        let bytes = call.bytes();
        let inline = bytes <= self.loaded.inline_bytes_max();
        if !inline && !self.loaded.steady() {
            return None;
        }
        let request = Request {
            class: 0,
            ..self.request(call, deadline)
        };
        let mut state = self.state.lock();
        let compute = &self.tools.compute;
        let (cores, blocks) = match state.paces.expected(bytes) {
            _ if inline => (None, false),
            Pace::Quick => (Some(compute.take(self.threads)?), false),
            Pace::Short if thread == Thread::MayKeep && self.far(deadline) => {
                (Some(compute.take_beside(self.threads)?), true)
            }
            Pace::Short | Pace::Unknown => return None,
        };
        let lane = state.batcher.direct(&request)?;
        let held = self.hold(&mut state, lane)?;
        let stop = Stop::default();
        if blocks {
            let call = (deadline.instant(), stop.clone());
            state.blocking.calls.insert(lane, call);
            self.watch(&mut state);
        }
        Some(Direct {
            held,
            cores,
            stop,
            blocks,
        })
    }

    /// Whether a call might keep its thread for longer than an async worker should be kept.
    pub(crate) fn is_short(&self, call: &Call) -> bool {
        let bytes = call.bytes();
        bytes > self.loaded.inline_bytes_max()
            && self.loaded.steady()
            && self.state.lock().paces.expected(bytes) == Pace::Short
    }

    fn far(&self, deadline: Deadline) -> bool {
        deadline.left(self.tools.clock.now()) >= SHORT * MARGIN
    }

    /// Sets the alarm for the first deadline. One call after the other has a later one, so few calls set any.
    fn watch(self: &Arc<Self>, state: &mut State) {
        let blocking = &mut state.blocking;
        let Some(first) = blocking.calls.values().map(|(deadline, _)| *deadline).min() else {
            return;
        };
        if blocking
            .alarm
            .as_ref()
            .is_some_and(|alarm| alarm.at() <= first)
        {
            return;
        }
        let queue = Arc::downgrade(self);
        blocking.alarm = Some(self.tools.timer.at(first, move || {
            if let Some(queue) = queue.upgrade() {
                queue.stop_late();
            }
        }));
    }

    /// Stops what nobody waits for any more.
    fn stop_late(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.blocking.alarm = None;
        let now = self.tools.clock.now();
        let late = state
            .blocking
            .calls
            .extract_if(.., |_, (deadline, _)| *deadline <= now);
        let late: Vec<_> = late.collect();
        self.watch(&mut state);
        drop(state);
        for (_, (_, stop)) in late {
            stop.set();
        }
    }

    /// Remembers how long a call took that ran directly, on a lane that is still its own.
    pub(crate) fn ran(&self, held: &Held, (rows, bytes): (usize, usize), took: Duration) {
        if self.loaded.steady() {
            let mut state = self.state.lock();
            state.paces.learn(bytes, took);
            state.batcher.learn(held.lane(), rows, took);
        }
    }
}

impl Blocking {
    pub(super) fn ended(&mut self, lane: usize) {
        self.calls.remove(&lane);
    }
}
