//! A decoupled model's call on a lane of its own.
//!
//! ```text
//! Idle ──asked──► Asked (a compute thread makes one answer) ──► Due (its delay, without a thread) ──► sent ──► Idle
//! ```
//! Dropped, it frees the lane: at once while nothing runs, else as soon as the engine heeds its stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, Deadline};
use protocol::{InferRequest, InferResponse, Tensor, Timing};
use tokio::sync::oneshot;

use super::books::{Books, Wanted};
use crate::call::{Call, Place, refused_error};
use crate::compute::ComputePool;
use crate::engine::{self, Run, Stop};
use crate::error::Error;
use crate::infer;
use crate::model::{ByEngine, Model};
use crate::queue::Held;
use crate::request::Fitted;

#[derive(Debug)]
pub(super) struct Streaming {
    compute: ComputePool,
    deadline: Deadline,
    stop: Stop,
    wanted: Wanted,
    inline: bool,
    pub(super) books: Books,
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

pub(super) async fn begin(
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
    let timing = Timing {
        queue: acquired.saturating_duration_since(checked),
        input: checked.saturating_duration_since(arrived)
            + aligned.saturating_duration_since(delayed),
        infer: delayed.saturating_duration_since(acquired),
        output: Duration::ZERO,
    };
    let opened = (model, place.clock);
    let books = Books::begin(opened, Some(batch), timing, (arrived, aligned));
    Ok(Streaming {
        compute: place.compute.clone(),
        deadline: place.deadline,
        stop,
        wanted: Wanted {
            id,
            outputs,
            classes,
        },
        inline,
        books,
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
    pub(super) async fn next(&mut self) -> Result<Option<InferResponse>, Error> {
        if let Step::Idle(_) = self.step {
            self.ask()?;
        }
        if let Step::Asked(asked) = &mut self.step {
            let left = self.deadline.left(self.books.clock.now());
            let (live, made) = match tokio::time::timeout(left, asked).await {
                Ok(Ok(made)) => made,
                Ok(Err(_)) => return Err(dropped(&self.books.model.name)),
                Err(_) => return Err(late(&self.books.model.name, "while the engine ran")),
            };
            self.books.timing.infer += made.took;
            let Some(response) = made.answer? else {
                self.step = Step::Nothing;
                return Ok(None);
            };
            let due = self.books.clock.now() + response.after;
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
        self.books.asked = self.books.clock.now();
        let (answer, asked) = oneshot::channel();
        let (clock, wanted) = (self.books.clock.clone(), self.wanted.outputs.len());
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
        let Some(engine) = self.books.model.by_engine() else {
            return Err(Error::Decoupled);
        };
        let submitted = self.compute.submit(engine.threads, work);
        submitted.map_err(|refused| refused_error(&engine.name, refused))
    }

    async fn wait(&mut self) -> Result<(), Error> {
        let Step::Due(_, _, due) = &self.step else {
            return Ok(());
        };
        let now = self.books.clock.now();
        let (left, wait) = (self.deadline.left(now), due.saturating_duration_since(now));
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(left)).await;
        }
        if wait >= left {
            return Err(late(&self.books.model.name, "between two answers"));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<InferResponse>, Error> {
        let Step::Due(live, response, _) = std::mem::replace(&mut self.step, Step::Nothing) else {
            return Ok(None);
        };
        self.step = Step::Idle(live);
        self.books.timing.infer += response.after;
        let ready = self.books.clock.now();
        let response = self.wanted.response(&self.books.model, response.outputs)?;
        self.books.answered(ready);
        Ok(Some(response))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.stop.set();
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
