//! One lane: runs an engine's call, survives its panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use protocol::Tensor;

use crate::engine::{EngineError, Lane, Loaded, Response, Responses, Run};
use crate::error::Error;

/// A place for a lane. It is empty after a panic, and the next call builds the lane anew.
#[derive(Debug)]
pub(crate) struct Slot(Option<Box<dyn Lane>>);

impl Slot {
    pub(crate) fn new(lane: Box<dyn Lane>) -> Self {
        Self(Some(lane))
    }

    /// Its lane is built at its first call.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// A panic has taken its lane.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Runs one call.
    pub(crate) fn run(
        &mut self,
        model: &str,
        loaded: &dyn Loaded,
        call: &Run<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        let outputs = self.caught(model, loaded, |lane| lane.run(call))?;
        counted(model, outputs, call.wanted.len())
    }

    /// Begins a call with any number of answers; take them with [`Self::next`].
    pub(crate) fn respond(
        &mut self,
        model: &str,
        loaded: &dyn Loaded,
        call: &Run<'_>,
    ) -> Result<Box<dyn Responses>, Error> {
        self.caught(model, loaded, |lane| lane.respond(call))
    }

    /// The next answer of a call that this lane began; it has `wanted` outputs.
    pub(crate) fn next(
        &mut self,
        (model, loaded): (&str, &dyn Loaded),
        responses: &mut dyn Responses,
        wanted: usize,
    ) -> Result<Option<Response>, Error> {
        let Some(response) = self.caught(model, loaded, |_| responses.next())? else {
            return Ok(None);
        };
        let outputs = counted(model, response.outputs, wanted)?;
        Ok(Some(Response {
            outputs,
            ..response
        }))
    }

    /// The artificial delay of this lane's calls.
    pub(crate) fn delay(&self, loaded: &dyn Loaded) -> Duration {
        let own = self.0.as_ref().and_then(|lane| lane.delay());
        own.unwrap_or_else(|| loaded.delay())
    }

    /// Survives the engine's panics.
    fn caught<T>(
        &mut self,
        model: &str,
        loaded: &dyn Loaded,
        work: impl FnOnce(&mut dyn Lane) -> Result<T, EngineError>,
    ) -> Result<T, Error> {
        let lane = match &mut self.0 {
            Some(lane) => lane,
            empty => empty.insert(loaded.lane()?),
        };
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| work(lane.as_mut()))) else {
            tracing::error!(model, "the engine panicked; its lane is rebuilt");
            let broken = self.0.take();
            // What a panic left behind may panic again when dropped.
            let _worse = catch_unwind(AssertUnwindSafe(|| drop(broken)));
            return Err(failed(model, "the engine panicked".to_owned()));
        };
        Ok(outcome?)
    }
}

fn counted(model: &str, outputs: Vec<Tensor>, expected: usize) -> Result<Vec<Tensor>, Error> {
    let found = outputs.len();
    if found == expected {
        return Ok(outputs);
    }
    Err(failed(
        model,
        format!("the engine gave {found} outputs, {expected} were asked for"),
    ))
}

fn failed(model: &str, reason: String) -> Error {
    Error::Failed {
        model: model.to_owned(),
        reason,
    }
}
