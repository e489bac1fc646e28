//! Who gets a model's next free lane: calls wait in order of arrival, and only so many of them.
//!
//! ```text
//! enter ──► a lane is free and nobody waits ──► Held
//!      ├──► there is a place ──► Waiting ──► Held (handed over by whoever frees a lane)
//!      └──► full: refused
//! ```
//! Dropping `Waiting` frees the place; dropping `Held` hands the lane to the next in line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Deadline};
use parking_lot::Mutex;
use protocol::Tensor;
use telemetry::metrics::Gauge;
use tokio::sync::oneshot;

use crate::engine::{Loaded, Response, Responses, Run};
use crate::error::Error;
use crate::lane::Slot;

pub(crate) struct Queue {
    pub(crate) model: String,
    pub(crate) loaded: Arc<dyn Loaded>,
    waiting_max: usize,
    /// Calls waiting; shared with the metric registry.
    depth: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Slot>,
    /// By ticket, which is the order of arrival.
    waiting: BTreeMap<u64, oneshot::Sender<Held>>,
    next_ticket: u64,
}

/// A lane that belongs to one call until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    queue: Arc<Queue>,
    /// None only while being dropped.
    slot: Option<Slot>,
}

/// A place in the line.
struct Waiting {
    queue: Arc<Queue>,
    ticket: u64,
    lane: oneshot::Receiver<Held>,
}

enum Entered {
    Held(Held),
    Waiting(Waiting),
}

impl Queue {
    pub(crate) fn new(
        model: &str,
        loaded: Arc<dyn Loaded>,
        slots: Vec<Slot>,
        waiting_max: usize,
        depth: Gauge,
    ) -> Arc<Self> {
        Arc::new(Self {
            model: model.to_owned(),
            loaded,
            waiting_max,
            depth,
            state: Mutex::new(State {
                idle: slots,
                ..State::default()
            }),
        })
    }

    /// Waits for a lane until the deadline. Cancel-safe: a dropped future leaves the line, or passes its lane on.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        deadline: Deadline,
        clock: &Clock,
    ) -> Result<Held, Error> {
        let late = || Error::Timeout {
            model: self.model.clone(),
            place: "in the queue",
        };
        let left = deadline.left(clock.now());
        if left.is_zero() {
            return Err(late());
        }
        match self.enter()? {
            Entered::Held(held) => Ok(held),
            Entered::Waiting(mut waiting) => {
                let handed = tokio::time::timeout(left, &mut waiting.lane).await;
                // The sender lives in the queue until it is used, and `waiting` keeps the queue alive.
                handed.ok().and_then(Result::ok).ok_or_else(late)
            }
        }
    }

    fn enter(self: &Arc<Self>) -> Result<Entered, Error> {
        let mut state = self.state.lock();
        if state.waiting.is_empty()
            && let Some(slot) = state.idle.pop()
        {
            return Ok(Entered::Held(Held {
                queue: Arc::clone(self),
                slot: Some(slot),
            }));
        }
        let waiting = state.waiting.len();
        if waiting >= self.waiting_max {
            return Err(Error::QueueFull {
                model: self.model.clone(),
                waiting,
            });
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let (hand_over, lane) = oneshot::channel();
        state.waiting.insert(ticket, hand_over);
        self.depth.inc();
        Ok(Entered::Waiting(Waiting {
            queue: Arc::clone(self),
            ticket,
            lane,
        }))
    }

    /// Hands a lane to the first in line that still waits, else keeps it.
    fn release(self: &Arc<Self>, mut slot: Slot) {
        loop {
            let mut state = self.state.lock();
            let Some((_, hand_over)) = state.waiting.pop_first() else {
                state.idle.push(slot);
                return;
            };
            drop(state);
            self.depth.dec();
            let held = Held {
                queue: Arc::clone(self),
                slot: Some(slot),
            };
            let Err(mut refused) = hand_over.send(held) else {
                return;
            };
            match refused.slot.take() {
                Some(back) => slot = back,
                None => return,
            }
        }
    }

    /// Calls in line.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.state.lock().idle.len()
    }
}

impl Held {
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Runs one call.
    pub(crate) fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, Error> {
        let queue = &self.queue;
        let slot = self.slot.as_mut().expect("a slot until dropped");
        slot.run(&queue.model, queue.loaded.as_ref(), call)
    }

    /// Begins a call with any number of answers.
    pub(crate) fn respond(&mut self, call: &Run<'_>) -> Result<Box<dyn Responses>, Error> {
        let queue = &self.queue;
        let slot = self.slot.as_mut().expect("a slot until dropped");
        slot.respond(&queue.model, queue.loaded.as_ref(), call)
    }

    /// The next answer of a call that this lane began; it has `wanted` outputs.
    pub(crate) fn next(
        &mut self,
        responses: &mut dyn Responses,
        wanted: usize,
    ) -> Result<Option<Response>, Error> {
        let queue = &self.queue;
        let slot = self.slot.as_mut().expect("a slot until dropped");
        slot.next((&queue.model, queue.loaded.as_ref()), responses, wanted)
    }

    /// How long the lane is held before it computes.
    pub(crate) fn delay(&self) -> Duration {
        let slot = self.slot.as_ref().expect("a slot until dropped");
        slot.delay(self.queue.loaded.as_ref())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.queue.release(slot);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A hand-over that came too late for us is in `lane`, whose drop passes it on.
        let left = self.queue.state.lock().waiting.remove(&self.ticket);
        if left.is_some() {
            self.queue.depth.dec();
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("model", &self.model)
            .field("waiting_max", &self.waiting_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
