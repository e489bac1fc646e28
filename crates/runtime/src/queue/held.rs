use std::sync::Arc;
use std::time::Duration;

use protocol::Tensor;

use super::Queue;
use crate::engine::{Response, Responses, Run};
use crate::error::Error;
use crate::lane::Slot;

/// A lane that belongs to one call until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    queue: Arc<Queue>,
    lane: usize,
    /// None only while being dropped.
    slot: Option<Slot>,
}

impl Held {
    pub(super) fn new(queue: Arc<Queue>, lane: usize, slot: Slot) -> Self {
        Self {
            queue,
            lane,
            slot: Some(slot),
        }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Its number.
    pub(super) fn lane(&self) -> usize {
        self.lane
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
            self.queue.release(self.lane, slot);
        }
    }
}
