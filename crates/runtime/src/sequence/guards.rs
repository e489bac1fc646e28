//! What happens when somebody is dropped in the middle: a caller, or a lane's driver.

use std::sync::Arc;

use protocol::CorrelationId;

use super::{Ran, Sequencer};

/// A caller's place.
pub(super) struct Held<'a> {
    pub(super) sequencer: &'a Arc<Sequencer>,
    pub(super) request: Option<u64>,
    pub(super) iterative: Option<CorrelationId>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.sequencer.leave(request, self.iterative.as_ref());
        }
    }
}

/// Should a driver end in the middle of a batch, its lane is free for the next one.
pub(super) struct Driven<'a> {
    pub(super) sequencer: &'a Arc<Sequencer>,
    pub(super) lane: Option<usize>,
}

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        let Some(lane) = self.lane else {
            return;
        };
        let mut state = self.sequencer.state.lock();
        state.lanes[lane].driven = false;
        let lost = Ran {
            own: None,
            ..Ran::lost()
        };
        self.sequencer.finish(&mut state, lane, lost);
    }
}
