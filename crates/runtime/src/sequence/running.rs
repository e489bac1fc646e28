//! A batch of sequences that somebody waits for, and what its end means for them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::Tensor;
use tokio::sync::Notify;

use crate::engine::{EngineError, Stop};
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) lane: usize,
    callers: AtomicUsize,
    pub(super) stop: Stop,
    gone: Notify,
}

/// Sequences that a batch has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Those in these slots of the lane.
    Slots(Vec<usize>),
    /// All of the lane.
    Lane,
}

impl Running {
    pub(super) fn new(lane: usize, callers: usize) -> Self {
        Self {
            lane,
            callers: AtomicUsize::new(callers),
            stop: Stop::default(),
            gone: Notify::new(),
        }
    }

    /// A caller is gone; the last one stops the batch.
    pub(super) fn leave(&self) {
        if self.callers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop.set();
            self.gone.notify_one();
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn abandoned(&self) -> bool {
        self.stop.is_set()
    }

    /// Waits until nobody waits for the batch.
    pub(super) async fn left(&self) {
        if !self.abandoned() {
            self.gone.notified().await;
        }
    }

    /// Waits this long, or until nobody waits for the batch.
    pub(super) async fn wait(&self, long: Duration) {
        if !self.abandoned() {
            let _over = tokio::time::timeout(long, self.gone.notified()).await;
        }
    }
}

impl Ended {
    pub(super) fn none() -> Self {
        Self::Slots(Vec::new())
    }

    /// A call that was stopped may have changed what the lane keeps for these slots; a lane that is gone keeps nothing.
    pub(super) fn of(ran: &Result<Vec<Tensor>, Error>, broken: bool, slots: &[usize]) -> Self {
        match ran {
            _ if broken => Self::Lane,
            Err(Error::Engine(EngineError::Gone { .. })) => Self::Lane,
            Err(Error::Engine(EngineError::Stopped)) => Self::Slots(slots.to_vec()),
            _ => Self::none(),
        }
    }

    pub(super) fn add(&mut self, more: impl Iterator<Item = usize>) {
        if let Self::Slots(slots) = self {
            slots.extend(more);
        }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        match other {
            Self::Lane => other,
            Self::Slots(slots) => {
                self.add(slots.into_iter());
                self
            }
        }
    }
}
