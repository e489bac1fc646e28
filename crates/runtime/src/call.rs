//! One call's way: straight to the engine where it is, or through the queue and a compute thread; then back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, Deadline, in_own_task, is_tried};
use protocol::{BufferPool, Tensor, Timing};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::block_in_place;

use crate::compute::{ComputePool, Refused};
use crate::engine::Run;
use crate::error::Error;
use crate::model::ByEngine;
use crate::queue::{self, Answered, Direct, Done, Pending, Reply, Thread};
use crate::runtime::Inner;

/// What a call needs besides its model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) runtime: &'a Arc<Inner>,
    pub(crate) clock: &'a Clock,
    pub(crate) compute: &'a ComputePool,
    pub(crate) buffers: &'a BufferPool,
    pub(crate) deadline: Deadline,
    /// The caller's task does nothing else meanwhile.
    pub(crate) own_task: bool,
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
    /// What it counts for in the books, where that is not its rows: texts in a batch of a fixed size.
    pub(crate) items: usize,
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
    pub(crate) fn counts(&self) -> usize {
        self.items.max(self.rows).max(1)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inputs.iter().map(|input| input.data.len()).sum()
    }
}

/// Runs a call to its end; `finish` turns the outputs into the answer on the thread that computed them. Takes the call out
/// of where it is: ten thousand of these may wait, and what each of them is given by value lies in it twice.
///
/// Cancel-safe: a dropped future leaves the line; a batch for which nobody waits any more is stopped.
pub(crate) async fn run<T: Send + 'static>(
    engine: &ByEngine,
    place: &Place<'_>,
    call: &mut Call,
    finish: impl FnOnce(Vec<Tensor>) -> Result<T, Error> + Send + 'static,
) -> Result<(T, Timing), Error> {
    let arrived = place.clock.now();
    if place.deadline.passed(arrived) {
        return Err(timeout(engine, "in the queue"));
    }
    if place.own_task && is_tried().await && engine.queue.is_short(call) {
        in_own_task().await;
    }
    let direct = engine.queue.direct(call, place.deadline, thread(place));
    let call = std::mem::take(call);
    let (result, done) = match direct {
        Some(direct) if direct.blocks => {
            block_in_place(|| here(direct, call, (place, arrived), finish))
        }
        Some(direct) => here(direct, call, (place, arrived), finish),
        None => {
            let (sender, answer) = oneshot::channel();
            let in_line = engine.queue.submit(Box::new(Pending {
                call,
                arrived,
                deadline: place.deadline,
                reply: Box::new(Caller { sender, finish }),
            }))?;
            answered(engine, place, in_line, answer).await?
        }
    };
    let total = place.clock.now().saturating_duration_since(arrived);
    let timing = Timing {
        queue: done.queue,
        input: done.input,
        infer: done.infer,
        output: total.saturating_sub(done.queue + done.input + done.infer),
    };
    result.map(|answer| (answer, timing))
}

/// Whether the caller's thread may be kept: its task must be the call's own, on an executor with a thread to stand in.
fn thread(place: &Place<'_>) -> Thread {
    let stands_in = || {
        let executor = Handle::try_current();
        executor.is_ok_and(|executor| executor.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    if place.own_task && stands_in() {
        Thread::MayKeep
    } else {
        Thread::MustLeave
    }
}

/// On the caller's thread.
fn here<T>(
    direct: Direct,
    mut call: Call,
    (place, arrived): (&Place<'_>, Instant),
    finish: impl FnOnce(Vec<Tensor>) -> Result<T, Error>,
) -> (Result<T, Error>, Done) {
    let Direct {
        mut held,
        cores,
        stop,
        ..
    } = direct;
    let clock = place.clock;
    let began = clock.now();
    let queue = Arc::clone(held.queue());
    let mut inputs = std::mem::take(&mut call.inputs);
    if queue.loaded.needs_alignment() {
        let aligned = inputs.into_iter().map(|input| input.aligned(place.buffers));
        inputs = aligned.collect();
    }
    let ready = clock.now();
    let outputs = held.run(&Run {
        inputs: &inputs,
        wanted: &call.wanted,
        stop: &stop,
    });
    let end = clock.now();
    let done = Done {
        queue: began.saturating_duration_since(arrived),
        input: ready.saturating_duration_since(began),
        infer: end.saturating_duration_since(ready),
    };
    if outputs.is_ok() {
        let bytes = inputs.iter().map(|input| input.data.len()).sum();
        queue.ran(&held, (call.rows, bytes), done.infer);
    }
    // Before the answer is prepared: the next call need not wait for that.
    drop(cores);
    drop(held);
    if outputs.is_ok() {
        queue.booked(call.counts(), &done);
    } else if stop.is_set() {
        let late = Error::Timeout {
            model: queue.model.clone(),
            place: "while the engine ran",
        };
        return (Err(late), done);
    }
    (outputs.and_then(finish), done)
}

/// With others, on a compute thread. The deadline holds while the engine runs, too.
async fn answered<T>(
    engine: &ByEngine,
    place: &Place<'_>,
    in_line: queue::Place,
    answer: oneshot::Receiver<T>,
) -> Result<T, Error> {
    let left = place.deadline.left(place.clock.now());
    match tokio::time::timeout(left, answer).await {
        Ok(Ok(answer)) => {
            in_line.settled();
            Ok(answer)
        }
        Ok(Err(_)) => Err(Error::Failed {
            model: engine.name.clone(),
            reason: "the call was dropped by its thread".to_owned(),
        }),
        Err(_) => Err(timeout(engine, in_line.whereabouts())),
    }
}

/// Makes the answer where it was computed, and sends it to who waits.
struct Caller<T, F> {
    sender: oneshot::Sender<(Result<T, Error>, Done)>,
    finish: F,
}

impl<T: Send, F: FnOnce(Vec<Tensor>) -> Result<T, Error> + Send> Reply for Caller<T, F> {
    fn gone(&self) -> bool {
        self.sender.is_closed()
    }

    fn answer(self: Box<Self>, Answered { outputs, done }: Answered) {
        if !self.sender.is_closed() {
            let _gone = self.sender.send((outputs.and_then(self.finish), done));
        }
    }
}

fn timeout(engine: &ByEngine, place: &'static str) -> Error {
    Error::Timeout {
        model: engine.name.clone(),
        place,
    }
}

pub(crate) fn refused_error(model: &str, refused: Refused) -> Error {
    let model = model.to_owned();
    match refused {
        Refused::Full => Error::Busy { model },
        Refused::Panicked => Error::Failed {
            model,
            reason: "preparing the call panicked".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
