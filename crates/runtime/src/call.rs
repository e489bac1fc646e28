//! One call's way: queue, lane, artificial delay, compute thread, back.

use std::time::{Duration, Instant};

use base::{Clock, Deadline};
use protocol::{BufferPool, Tensor, Timing};
use tokio::sync::oneshot;

use crate::compute::{ComputePool, Refused};
use crate::engine::{Run, Stop};
use crate::error::Error;
use crate::model::ByEngine;
use crate::queue::Held;
use crate::runtime::Inner;

/// What a call needs besides its model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) runtime: &'a Inner,
    pub(crate) clock: &'a Clock,
    pub(crate) compute: &'a ComputePool,
    pub(crate) buffers: &'a BufferPool,
    pub(crate) deadline: Deadline,
}

/// One call, and what the batcher must know to place it.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// In the engine's order.
    pub(crate) inputs: Vec<Tensor>,
    /// The outputs wanted, as the engine's indices.
    pub(crate) wanted: Vec<usize>,
    /// Items along the batch dimension; 0 without one.
    pub(crate) rows: usize,
    /// 1 is the most urgent; 0 means the model's default.
    pub(crate) priority: u64,
    /// The caller's own bound on the time in the queue; the model's policy says whether it counts.
    pub(crate) timeout: Option<Duration>,
    /// Calls share a batch only when this is equal; that their shapes match is seen to by the queue.
    pub(crate) class: u64,
    /// The one lane that may run it, as a direct sequence needs.
    pub(crate) lane: Option<usize>,
}

impl Call {
    fn bytes(&self) -> usize {
        self.inputs.iter().map(|input| input.data.len()).sum()
    }
}

/// What a compute thread hands back.
struct Outcome<T> {
    result: Result<T, Error>,
    began: Instant,
    input: Duration,
    infer: Duration,
}

/// Runs a call to its end; `finish` turns the outputs into the answer on the thread that computed them.
///
/// Cancel-safe: a dropped future frees its place or its lane; a call that computes already runs to its end, and frees
/// the lane then. One that is queued for a thread is skipped.
pub(crate) async fn run<T: Send + 'static>(
    model: &ByEngine,
    place: Place<'_>,
    call: Call,
    finish: impl FnOnce(Vec<Tensor>) -> Result<T, Error> + Send + 'static,
) -> Result<(T, Timing), Error> {
    let Place {
        clock, deadline, ..
    } = place;
    let arrived = clock.now();
    let held = model.queue.acquire(deadline, clock).await?;
    let acquired = clock.now();
    let delay = held.delay();
    if !delay.is_zero() {
        let late = || timeout(model, "in the artificial delay");
        let left = deadline.left(acquired);
        tokio::time::sleep(delay.min(left)).await;
        if deadline.passed(clock.now()) {
            return Err(late());
        }
    }
    let delayed = clock.now();
    let inline = delay.is_zero() && call.bytes() <= model.queue.loaded.inline_bytes_max();
    let outcome = if inline {
        compute(held, call, (clock, place.buffers), finish)
    } else {
        elsewhere(model, place, (held, call), finish).await?
    };
    let returned = clock.now();
    let waited = acquired.saturating_duration_since(arrived)
        + outcome.began.saturating_duration_since(delayed);
    let infer = outcome.infer + delayed.saturating_duration_since(acquired);
    let timing = Timing {
        queue: waited,
        input: outcome.input,
        infer,
        output: returned
            .saturating_duration_since(arrived)
            .saturating_sub(waited + outcome.input + infer),
    };
    outcome.result.map(|answer| (answer, timing))
}

/// On a compute thread. The deadline holds while the engine runs, too: the caller is told, the lane stays busy.
async fn elsewhere<T: Send + 'static>(
    model: &ByEngine,
    place: Place<'_>,
    (held, call): (Held, Call),
    finish: impl FnOnce(Vec<Tensor>) -> Result<T, Error> + Send + 'static,
) -> Result<Outcome<T>, Error> {
    let Place {
        clock,
        compute: pool,
        buffers,
        deadline,
        runtime: _,
    } = place;
    let (answer, result) = oneshot::channel();
    let (thread_clock, buffers) = (clock.clone(), buffers.clone());
    pool.submit(model.threads, move || {
        if answer.is_closed() || deadline.passed(thread_clock.now()) {
            // Dropping `held` passes the lane on; dropping `answer` tells whoever still waits.
            return;
        }
        let _gone = answer.send(compute(held, call, (&thread_clock, &buffers), finish));
    })
    .map_err(|refused| refused_error(model, refused))?;
    let left = deadline.left(clock.now());
    match tokio::time::timeout(left, result).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_)) if !deadline.passed(clock.now()) => Err(Error::Failed {
            model: model.name.clone(),
            reason: "the call was dropped by its thread".to_owned(),
        }),
        Ok(Err(_)) => Err(timeout(model, "waiting for a compute thread")),
        Err(_) => Err(timeout(model, "while the engine ran")),
    }
}

fn compute<T>(
    mut held: Held,
    mut call: Call,
    (clock, buffers): (&Clock, &BufferPool),
    finish: impl FnOnce(Vec<Tensor>) -> Result<T, Error>,
) -> Outcome<T> {
    let began = clock.now();
    if held.queue().loaded.needs_alignment() {
        call.inputs = call
            .inputs
            .into_iter()
            .map(|input| input.aligned(buffers))
            .collect();
    }
    let aligned = clock.now();
    let result = held.run(&Run {
        inputs: &call.inputs,
        wanted: &call.wanted,
        stop: &Stop::default(),
    });
    let infer = clock.now().saturating_duration_since(aligned);
    // Before the answer is prepared: the next call need not wait for that.
    drop(held);
    Outcome {
        result: result.and_then(finish),
        began,
        input: aligned.saturating_duration_since(began),
        infer,
    }
}

fn timeout(model: &ByEngine, place: &'static str) -> Error {
    Error::Timeout {
        model: model.name.clone(),
        place,
    }
}

pub(crate) fn refused_error(model: &ByEngine, refused: Refused) -> Error {
    let model = model.name.clone();
    match refused {
        Refused::Full => Error::Busy { model },
        Refused::Panicked => Error::Failed {
            model,
            reason: "preparing the call panicked".to_owned(),
        },
    }
}
