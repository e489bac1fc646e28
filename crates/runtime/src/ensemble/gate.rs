use base::{Clock, Deadline};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;

/// How many are in a step at a time, first come first served, and how many may wait for that.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    /// Those inside and those waiting.
    places: Semaphore,
    waiting_max: usize,
}

impl Gate {
    pub(crate) fn new(inside_max: usize, waiting_max: usize) -> Self {
        let inside_max = inside_max.min(Semaphore::MAX_PERMITS);
        let places = inside_max.saturating_add(waiting_max);
        Self {
            permits: Semaphore::new(inside_max),
            places: Semaphore::new(places.min(Semaphore::MAX_PERMITS)),
            waiting_max,
        }
    }

    /// A place for one request, which may then ask for several permits; refused when too many wait already.
    pub(crate) fn place(&self, ensemble: &str) -> Result<SemaphorePermit<'_>, Error> {
        self.places.try_acquire().map_err(|_| Error::QueueFull {
            model: ensemble.to_owned(),
            waiting: self.waiting_max,
        })
    }

    /// Waits until the deadline. Cancel-safe: a dropped future leaves the line.
    pub(crate) async fn permit(
        &self,
        ensemble: &str,
        deadline: Deadline,
        clock: &Clock,
    ) -> Result<SemaphorePermit<'_>, Error> {
        let left = deadline.left(clock.now());
        let permit = tokio::time::timeout(left, self.permits.acquire()).await;
        // The semaphore is never closed.
        permit
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Error::Timeout {
                model: ensemble.to_owned(),
                place: "waiting for a step",
            })
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.permits.available_permits()
    }
}
