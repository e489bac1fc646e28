//! The answers to one call, one at a time: exactly one, or any number from a decoupled model.
//!
//! ```text
//! Idle ──asked──► Asked (a compute thread makes one answer) ──► Due (its delay, without a thread) ──► sent ──► Idle
//! ```
//! Nothing is computed before it is asked for, so a client that reads slowly holds its lane and no memory. Dropping
//! [`Responses`] frees the lane: at once while nothing runs, else as soon as the engine heeds its stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, Deadline};
use protocol::{ApiError, InferRequest, InferResponse, StreamedResponse, Tensor, Timing};
use tokio::sync::oneshot;

use crate::call::{Call, Place, refused_error};
use crate::compute::ComputePool;
use crate::engine::{self, Run, Stop};
use crate::error::Error;
use crate::infer;
use crate::model::{ByEngine, Model};
use crate::queue::Held;
use crate::request::Fitted;
use crate::statistics::{Attempt, Ending};

/// The answers to one call. Dropping it cancels what is left of the call.
#[derive(Debug)]
pub struct Responses(State);

#[derive(Debug)]
enum State {
    Once(Box<InferResponse>),
    Many(Box<Streaming>),
    Ended,
}

#[derive(Debug)]
struct Streaming {
    model: Arc<Model>,
    clock: Clock,
    compute: ComputePool,
    deadline: Deadline,
    stop: Stop,
    id: Option<String>,
    /// The client's outputs, as [`Fitted::outputs`].
    outputs: Vec<usize>,
    classes: Vec<Option<usize>>,
    batch: usize,
    inline: bool,
    attempt: Option<Attempt>,
    timing: Timing,
    arrived: Instant,
    /// Answers so far.
    index: usize,
    /// When the wait for the answer that comes next began.
    asked: Instant,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Idle(Live),
    Asked(oneshot::Receiver<(Live, Made)>),
    Due(Live, engine::Response, Instant),
    /// Only while a step is taken, and after an error.
    Nothing,
}

/// A lane in the middle of a call.
#[derive(Debug)]
struct Live {
    // Before the lane: it may run the next call only when these are gone.
    answers: Box<dyn engine::Responses>,
    held: Held,
}

#[derive(Debug)]
struct Made {
    answer: Result<Option<engine::Response>, Error>,
    took: Duration,
}

impl Responses {
    pub(crate) fn once(response: InferResponse) -> Self {
        Self(State::Once(Box::new(response)))
    }

    /// The next answer; none at the end. An error ends the stream. Cancel-safe: an answer that is not taken now is the
    /// next call's.
    pub async fn next(&mut self) -> Result<Option<StreamedResponse>, ApiError> {
        let State::Many(streaming) = &mut self.0 else {
            let State::Once(response) = std::mem::replace(&mut self.0, State::Ended) else {
                return Ok(None);
            };
            return Ok(Some(StreamedResponse {
                response: *response,
                last: true,
            }));
        };
        let next = streaming.next().await;
        match next {
            Ok(Some(response)) => Ok(Some(StreamedResponse {
                response,
                last: false,
            })),
            Ok(None) => {
                streaming.succeeded();
                self.0 = State::Ended;
                Ok(None)
            }
            Err(error) => {
                streaming.failed(&error);
                self.0 = State::Ended;
                Err(error.into())
            }
        }
    }
}

/// For a decoupled model; resolves when the call has begun.
pub(crate) async fn stream(
    model: &Arc<Model>,
    place: Place<'_>,
    request: InferRequest,
) -> Result<Responses, Error> {
    let attempt = model.statistics.begin(place.clock);
    match begin(model, place, request).await {
        Ok(mut streaming) => {
            streaming.attempt = Some(attempt);
            Ok(Responses(State::Many(Box::new(streaming))))
        }
        Err(error) => {
            attempt.fail(&error);
            Err(error)
        }
    }
}

async fn begin(
    model: &Arc<Model>,
    mut place: Place<'_>,
    mut request: InferRequest,
) -> Result<Streaming, Error> {
    let arrived = place.clock.now();
    let id = request.id.take();
    let controls = infer::controls(model, &request, &mut place)?;
    let Fitted {
        call,
        outputs,
        classes,
        batch,
    } = model.interface.fit(request)?;
    let Some(engine) = model.by_engine() else {
        // No ensemble with a decoupled member is ever ready.
        return Err(Error::Decoupled);
    };
    let checked = place.clock.now();
    let asks = Call {
        priority: controls.priority,
        timeout: controls.timeout,
        ..Call::default()
    };
    let line = engine.queue.acquire(asks, place.deadline, place.clock);
    let held = line.await?;
    let acquired = place.clock.now();
    wait(engine, place.clock, place.deadline, held.delay()).await?;
    let delayed = place.clock.now();
    let bytes: usize = call.inputs.iter().map(|input| input.data.len()).sum();
    let inline = bytes <= engine.queue.loaded.inline_bytes_max();
    let stop = Stop::default();
    let inputs = align(engine, place, call.inputs);
    let aligned = place.clock.now();
    let respond = opening(held, inputs, call.wanted, stop.clone());
    let live = if inline {
        respond()?
    } else {
        // Stops what runs should the caller leave meanwhile.
        let mut guard = StopOnDrop(Some(&stop));
        let live = elsewhere(engine, place, respond).await?;
        guard.0 = None;
        live
    };
    Ok(Streaming {
        model: Arc::clone(model),
        clock: place.clock.clone(),
        compute: place.compute.clone(),
        deadline: place.deadline,
        stop,
        id,
        outputs,
        classes,
        batch,
        inline,
        attempt: None,
        timing: Timing {
            queue: acquired.saturating_duration_since(checked),
            input: checked.saturating_duration_since(arrived)
                + aligned.saturating_duration_since(delayed),
            infer: delayed.saturating_duration_since(acquired),
            output: Duration::ZERO,
        },
        arrived,
        index: 0,
        asked: aligned,
        step: Step::Idle(live),
    })
}

struct StopOnDrop<'a>(Option<&'a Stop>);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(stop) = self.0 {
            stop.set();
        }
    }
}

fn align(engine: &ByEngine, place: Place<'_>, inputs: Vec<Tensor>) -> Vec<Tensor> {
    if !engine.queue.loaded.needs_alignment() {
        return inputs;
    }
    let aligned = inputs.into_iter().map(|input| input.aligned(place.buffers));
    aligned.collect()
}

fn opening(
    mut held: Held,
    inputs: Vec<Tensor>,
    wanted: Vec<usize>,
    stop: Stop,
) -> impl FnOnce() -> Result<Live, Error> + Send + 'static {
    move || {
        let answers = held.respond(&Run {
            inputs: &inputs,
            wanted: &wanted,
            stop: &stop,
        })?;
        Ok(Live { answers, held })
    }
}

async fn elsewhere<T: Send + 'static>(
    engine: &ByEngine,
    place: Place<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (answer, result) = oneshot::channel();
    let submitted = place.compute.submit(engine.threads, move || {
        if !answer.is_closed() {
            let _gone = answer.send(work());
        }
    });
    submitted.map_err(|refused| refused_error(&engine.name, refused))?;
    let left = place.deadline.left(place.clock.now());
    match tokio::time::timeout(left, result).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(dropped(&engine.name)),
        Err(_) => Err(late(&engine.name, "while the engine ran")),
    }
}

/// Waits without a thread, up to the deadline.
async fn wait(
    engine: &ByEngine,
    clock: &Clock,
    deadline: Deadline,
    delay: Duration,
) -> Result<(), Error> {
    if delay.is_zero() {
        return Ok(());
    }
    let left = deadline.left(clock.now());
    tokio::time::sleep(delay.min(left)).await;
    if delay >= left {
        return Err(late(&engine.name, "in the artificial delay"));
    }
    Ok(())
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<InferResponse>, Error> {
        if let Step::Idle(_) = self.step {
            self.ask()?;
        }
        if let Step::Asked(asked) = &mut self.step {
            let left = self.deadline.left(self.clock.now());
            let (live, made) = match tokio::time::timeout(left, asked).await {
                Ok(Ok(made)) => made,
                Ok(Err(_)) => return Err(dropped(&self.model.name)),
                Err(_) => return Err(late(&self.model.name, "while the engine ran")),
            };
            self.timing.infer += made.took;
            let Some(response) = made.answer? else {
                self.step = Step::Nothing;
                return Ok(None);
            };
            let due = self.clock.now() + response.after;
            self.step = Step::Due(live, response, due);
        }
        self.wait().await?;
        self.take()
    }

    /// Has the next answer made, here or on a compute thread.
    fn ask(&mut self) -> Result<(), Error> {
        let Step::Idle(mut live) = std::mem::replace(&mut self.step, Step::Nothing) else {
            return Ok(());
        };
        self.asked = self.clock.now();
        let (answer, asked) = oneshot::channel();
        let (clock, wanted) = (self.clock.clone(), self.outputs.len());
        let work = move || {
            if answer.is_closed() {
                return;
            }
            let began = clock.now();
            let made = live.held.next(live.answers.as_mut(), wanted);
            let took = clock.now().saturating_duration_since(began);
            let _gone = answer.send((live, Made { answer: made, took }));
        };
        self.step = Step::Asked(asked);
        if self.inline {
            work();
            return Ok(());
        }
        let Some(engine) = self.model.by_engine() else {
            return Err(Error::Decoupled);
        };
        let submitted = self.compute.submit(engine.threads, work);
        submitted.map_err(|refused| refused_error(&engine.name, refused))
    }

    async fn wait(&mut self) -> Result<(), Error> {
        let Step::Due(_, _, due) = &self.step else {
            return Ok(());
        };
        let now = self.clock.now();
        let (left, wait) = (self.deadline.left(now), due.saturating_duration_since(now));
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(left)).await;
        }
        if wait >= left {
            return Err(late(&self.model.name, "between two answers"));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<InferResponse>, Error> {
        let Step::Due(live, response, _) = std::mem::replace(&mut self.step, Step::Nothing) else {
            return Ok(None);
        };
        self.step = Step::Idle(live);
        self.timing.infer += response.after;
        let ready = self.clock.now();
        let model = &self.model;
        let wanted = (&self.outputs[..], &self.classes[..]);
        let outputs = model
            .interface
            .classified(response.outputs, wanted, &model.labels)?;
        let response = InferResponse {
            model: self.model.name.clone(),
            version: self.model.version.clone(),
            id: self.id.clone(),
            outputs,
            ..InferResponse::default()
        };
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
        Ok(Some(response))
    }

    fn book(&self, ending: Ending) {
        self.model.statistics.responded(self.index, ending);
    }

    fn waited(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.asked)
    }

    fn succeeded(&mut self) {
        if self.index == 0 {
            self.book(Ending::Empty(self.waited()));
        }
        let statistics = &self.model.statistics;
        statistics.executed(self.batch, &self.timing, &self.clock);
        if let Some(attempt) = self.attempt.take() {
            attempt.success(&self.timing);
        }
    }

    fn failed(&mut self, error: &Error) {
        self.book(Ending::Failed(self.waited()));
        if let Some(attempt) = self.attempt.take() {
            attempt.fail(error);
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.stop.set();
        // What is left of it counts as cancelled when it drops.
        if self.attempt.is_some() {
            self.book(Ending::Cancelled(self.waited()));
        }
    }
}

fn late(model: &str, place: &'static str) -> Error {
    Error::Timeout {
        model: model.to_owned(),
        place,
    }
}

fn dropped(model: &str) -> Error {
    Error::Failed {
        model: model.to_owned(),
        reason: "the call was dropped by its thread".to_owned(),
    }
}

#[cfg(test)]
mod tests;
