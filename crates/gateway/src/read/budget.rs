use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ReadError;

/// Bytes that request bodies may take in memory, all together. Requests are counted elsewhere; a hundred of the largest
/// size would still be more than a machine has.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    held: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            held: AtomicUsize::new(0),
        })
    }
}

/// What one request holds of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Held {
    pub(crate) fn nothing(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::clone(budget),
            bytes: AtomicUsize::new(0),
        })
    }

    /// Whether less than half of the memory is taken.
    pub(crate) fn has_room(&self) -> bool {
        let Budget { bytes_max, held } = &*self.budget;
        held.load(Ordering::Relaxed) < *bytes_max / 2
    }

    pub(crate) fn add(&self, bytes: usize) -> Result<(), ReadError> {
        let Budget { bytes_max, held } = &*self.budget;
        // Relaxed: the count guards no other memory.
        if bytes > *bytes_max {
            return Err(ReadError::Full {
                bytes_max: *bytes_max,
            });
        }
        let before = held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > *bytes_max {
            held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(ReadError::Full {
                bytes_max: *bytes_max,
            });
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}
