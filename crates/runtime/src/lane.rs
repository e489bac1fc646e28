//! One lane: runs an engine's call, survives its panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use protocol::Tensor;

use crate::engine::{Lane, Loaded, Run};
use crate::error::Error;

/// A place for a lane. It is empty after a panic, and the next call builds the lane anew.
#[derive(Debug)]
pub(crate) struct Slot(Option<Box<dyn Lane>>);

impl Slot {
    pub(crate) fn new(lane: Box<dyn Lane>) -> Self {
        Self(Some(lane))
    }

    /// Runs one call.
    pub(crate) fn run(
        &mut self,
        model: &str,
        loaded: &dyn Loaded,
        call: &Run<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        let lane = match &mut self.0 {
            Some(lane) => lane,
            empty => empty.insert(loaded.lane()?),
        };
        let failed = |reason: String| Error::Failed {
            model: model.to_owned(),
            reason,
        };
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| lane.run(call))) else {
            tracing::error!(model, "the engine panicked; its lane is rebuilt");
            let broken = self.0.take();
            // What a panic left behind may panic again when dropped.
            let _worse = catch_unwind(AssertUnwindSafe(|| drop(broken)));
            return Err(failed("the engine panicked".to_owned()));
        };
        let outputs = outcome?;
        if outputs.len() == call.wanted.len() {
            Ok(outputs)
        } else {
            let found = outputs.len();
            let expected = call.wanted.len();
            Err(failed(format!(
                "the engine gave {found} outputs, {expected} were asked for"
            )))
        }
    }
}
