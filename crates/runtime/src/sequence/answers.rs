//! Where a request's answers go: one, or any number of an iterative sequence's, a few of them ahead of their reader.

use std::sync::Arc;

use base::Deadline;
use protocol::{CorrelationId, Tensor, Timing};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Sequencer};
use crate::error::Error;

/// Answers that nobody has taken yet; with so many, the request is not run again until one is taken. A batch is not to wait
/// for the task that writes to a socket, and a reader that is slower than the model needs no more.
const AHEAD_MAX: usize = 4;

/// One of several answers.
#[derive(Debug)]
pub(super) enum Made {
    Answer(Vec<Tensor>),
    /// Nothing comes behind it.
    Last(Vec<Tensor>),
    End,
}

type Part = Result<Made, Error>;

#[derive(Debug)]
pub(super) enum Reply {
    Once(oneshot::Sender<Answer>),
    Many(mpsc::Sender<Part>),
}

impl Reply {
    /// Nobody waits for it any more.
    pub(super) fn gone(&self) -> bool {
        match self {
            Self::Once(answer) => answer.is_closed(),
            Self::Many(answers) => answers.is_closed(),
        }
    }

    /// Whether another answer can be given.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Once(_) => true,
            Self::Many(answers) => answers.capacity() > 0,
        }
    }

    /// The answer of one iteration, behind which there are more; a model that answers once says nothing yet.
    pub(super) fn part(&self, outputs: Vec<Tensor>) {
        if let Self::Many(answers) = self {
            let _gone = answers.try_send(Ok(Made::Answer(outputs)));
        }
    }

    pub(super) fn last(self, outputs: Vec<Tensor>, timing: Timing) {
        match self {
            Self::Once(answer) => {
                let _gone = answer.send(Ok((outputs, timing)));
            }
            Self::Many(answers) => {
                let _gone = answers.try_send(Ok(Made::Last(outputs)));
            }
        }
    }

    /// An answer whose maker waits until there is room for it.
    pub(super) async fn in_turn(&self, outputs: Vec<Tensor>) {
        if let Self::Many(answers) = self {
            let _gone = answers.send(Ok(Made::Answer(outputs))).await;
        }
    }

    /// There are no more answers; its maker waits for room, too.
    pub(super) async fn end(self) {
        if let Self::Many(answers) = self {
            let _gone = answers.send(Ok(Made::End)).await;
        }
    }

    /// The same with an error as its last word.
    pub(super) async fn fail_in_turn(self, error: Error) {
        match self {
            Self::Once(_) => self.fail(error),
            Self::Many(answers) => {
                let _gone = answers.send(Err(error)).await;
            }
        }
    }

    /// A reader without room for the error learns it from the end that does not say that it is one.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Once(answer) => {
                let _gone = answer.send(Err(error));
            }
            Self::Many(answers) => {
                let _gone = answers.try_send(Err(error));
            }
        }
    }
}

/// The answers to one request. Dropping it ends the sequence, where that is one request or the request has not been run.
#[derive(Debug)]
pub(crate) struct Answers {
    sequencer: Arc<Sequencer>,
    request: u64,
    id: CorrelationId,
    deadline: Deadline,
    made: mpsc::Receiver<Part>,
    over: bool,
}

/// Both ends of a request's answers.
pub(super) fn channel() -> (Reply, mpsc::Receiver<Part>) {
    let (answers, made) = mpsc::channel(AHEAD_MAX);
    (Reply::Many(answers), made)
}

impl Answers {
    pub(super) fn new(
        sequencer: &Arc<Sequencer>,
        (request, id): (u64, CorrelationId),
        deadline: Deadline,
        made: mpsc::Receiver<Part>,
    ) -> Self {
        Self {
            sequencer: Arc::clone(sequencer),
            request,
            id,
            deadline,
            made,
            over: false,
        }
    }

    /// The next answer's outputs; none at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Tensor>>, Error> {
        if self.over {
            return Ok(None);
        }
        let model = &self.sequencer.fixed.model;
        let part = loop {
            // Another sequence that falls silent may have the place that this one waits for.
            let nap = self.sequencer.nap(self.deadline);
            match tokio::time::timeout(nap, self.made.recv()).await {
                Ok(part) => break part,
                Err(_) if self.deadline.passed(self.sequencer.fixed.clock.now()) => {
                    return Err(Error::Timeout {
                        model: model.clone(),
                        place: "in the sequence",
                    });
                }
                Err(_) => self.sequencer.expire(),
            }
        };
        let lost = || Error::SequenceLost {
            model: model.clone(),
            sequence: self.id.to_string(),
        };
        match part.ok_or_else(lost).flatten()? {
            Made::Answer(outputs) => {
                self.sequencer.go_on(self.request);
                Ok(Some(outputs))
            }
            Made::Last(outputs) => {
                self.over = true;
                Ok(Some(outputs))
            }
            Made::End => {
                self.over = true;
                Ok(None)
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if !self.over {
            let iterative = self.sequencer.iterative().then_some(&self.id);
            self.sequencer.leave(self.request, iterative);
        }
    }
}
