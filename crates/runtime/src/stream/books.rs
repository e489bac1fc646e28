use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Clock;
use protocol::{InferResponse, Tensor, Timing};

use crate::error::Error;
use crate::model::Model;
use crate::statistics::{Attempt, Ending};

/// What the client wants of each answer.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: Option<String>,
    /// As [`crate::request::Fitted::outputs`].
    pub(super) outputs: Vec<usize>,
    pub(super) classes: Vec<Option<usize>>,
}

impl Wanted {
    pub(super) fn response(
        &self,
        model: &Model,
        outputs: Vec<Tensor>,
    ) -> Result<InferResponse, Error> {
        let wanted = (&self.outputs[..], &self.classes[..]);
        let outputs = model.interface.classified(outputs, wanted, &model.labels)?;
        Ok(InferResponse {
            model: model.name.clone(),
            version: model.version.clone(),
            id: self.id.clone(),
            outputs,
            ..InferResponse::default()
        })
    }
}

/// What a stream counts for. What is left of it counts as cancelled when it drops.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) model: Arc<Model>,
    pub(super) clock: Clock,
    pub(super) attempt: Option<Attempt>,
    pub(super) timing: Timing,
    /// Rows of the call; none where whoever runs them counts them.
    pub(super) rows: Option<usize>,
    pub(super) arrived: Instant,
    /// Answers so far.
    pub(super) index: usize,
    /// When the wait for the answer that comes next began.
    pub(super) asked: Instant,
}

impl Books {
    /// Of a stream whose first answer is waited for from `asked` on.
    pub(super) fn begin(
        (model, clock): (&Arc<Model>, &Clock),
        rows: Option<usize>,
        timing: Timing,
        (arrived, asked): (Instant, Instant),
    ) -> Self {
        Self {
            model: Arc::clone(model),
            clock: clock.clone(),
            attempt: None,
            timing,
            rows,
            arrived,
            index: 0,
            asked,
        }
    }

    /// An answer was there at `ready` and is now what the client gets.
    pub(super) fn answered(&mut self, ready: Instant) {
        let now = self.clock.now();
        let infer = ready.saturating_duration_since(self.asked);
        let output = now.saturating_duration_since(ready);
        self.timing.output += output;
        if self.index == 0 {
            let first = now.saturating_duration_since(self.arrived);
            self.model.statistics.first_response(first);
        }
        self.book(Ending::Answered { infer, output });
        self.index += 1;
    }

    fn book(&self, ending: Ending) {
        self.model.statistics.responded(self.index, ending);
    }

    fn waited(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.asked)
    }

    pub(super) fn succeeded(&mut self) {
        if self.index == 0 {
            self.book(Ending::Empty(self.waited()));
        }
        if let Some(rows) = self.rows {
            let statistics = &self.model.statistics;
            statistics.executed(rows, &self.timing, &self.clock);
        }
        if let Some(attempt) = self.attempt.take() {
            attempt.success(&self.timing);
        }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.book(Ending::Failed(self.waited()));
        if let Some(attempt) = self.attempt.take() {
            attempt.fail(error);
        }
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if self.attempt.is_some() {
            self.book(Ending::Cancelled(self.waited()));
        }
    }
}
