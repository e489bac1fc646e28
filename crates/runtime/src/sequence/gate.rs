//! A lane's part in the rate limiter. Each lane is a member of its own, as an instance is in Triton.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::running::Running;
use crate::limit::{Limit, Waits};

#[derive(Debug)]
pub(super) struct Gate {
    limit: Limit,
    freed: Arc<Freed>,
}

#[derive(Debug, Default)]
struct Freed(Notify);

impl Waits for Freed {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// What a batch holds while it runs; given back when dropped, which must not be while the sequencer is locked.
pub(super) struct Permit<'a>(&'a Limit);

/// In line; others stand back for it until it leaves.
struct Line<'a>(Option<&'a Limit>);

impl Gate {
    pub(super) fn new(limit: Limit) -> Self {
        let freed = Arc::new(Freed::default());
        let weak: Weak<Freed> = Arc::downgrade(&freed);
        limit.serve(weak);
        Self { limit, freed }
    }

    /// Waits for what a batch needs; none when everybody has left the batch meanwhile.
    pub(super) async fn pass(&self, running: &Running) -> Option<Permit<'_>> {
        let mut line = Line(Some(&self.limit));
        loop {
            if self.limit.take() {
                line.0 = None;
                return Some(Permit(&self.limit));
            }
            if running.abandoned() {
                return None;
            }
            // Both keep what they are told until somebody looks.
            tokio::select! {
                () = self.freed.0.notified() => {}
                () = running.left() => {}
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.give_back(false);
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if let Some(limit) = self.0 {
            limit.rest();
        }
    }
}
