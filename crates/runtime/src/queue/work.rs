//! One batch on its way: artificial delay, compute thread, one call of the engine, an answer for each caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use batch::Ticket;
use parking_lot::Mutex;
use protocol::{Tensor, Timing};

use super::{Held, Pending, Queue, Tools};
use crate::compute::Refused;
use crate::engine::{EngineError, Run, Stop};
use crate::error::Error;
use crate::gather;
use crate::timer::Alarm;

/// Takes one caller's answer, once.
pub(crate) trait Reply: Send {
    /// Nobody waits for it.
    fn gone(&self) -> bool;

    fn answer(self: Box<Self>, answered: Answered);
}

/// What came of one caller's call.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) outputs: Result<Vec<Tensor>, Error>,
    pub(crate) done: Done,
}

/// Where its time went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    pub(crate) queue: Duration,
    pub(crate) input: Duration,
    pub(crate) infer: Duration,
}

impl Done {
    pub(super) fn timing(self) -> Timing {
        Timing {
            queue: self.queue,
            input: self.input,
            infer: self.infer,
            output: Duration::ZERO,
        }
    }
}

impl Answered {
    pub(crate) fn without(error: Error) -> Self {
        Self {
            outputs: Err(error),
            done: Done::default(),
        }
    }
}

/// A batch that somebody waits for.
pub(super) struct Running {
    callers: AtomicUsize,
    stop: Stop,
    /// While its lane is held without computing.
    delayed: Mutex<Option<(Work, Alarm)>>,
}

impl Running {
    /// It holds its lane and computes nothing yet.
    pub(super) fn waits(&self) -> bool {
        self.delayed.lock().is_some()
    }

    /// A caller is gone; the last one stops the batch.
    pub(super) fn leave(&self) {
        if self.callers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop.set();
            // Its drop frees the lane.
            let delayed = self.delayed.lock().take();
            drop(delayed);
        }
    }
}

type Member = (Ticket, Box<Pending>);

/// A batch on its lane.
pub(super) struct Work {
    members: Vec<Member>,
    padded: usize,
    started: Instant,
    /// How long the lane was held before it computed.
    delay: Duration,
    running: Arc<Running>,
    /// Last: it is passed on when all else is done.
    held: Held,
}

impl Work {
    pub(super) fn new(held: Held, members: Vec<Member>, padded: usize) -> Self {
        let running = Running {
            callers: AtomicUsize::new(members.len()),
            stop: Stop::default(),
            delayed: Mutex::new(None),
        };
        Self {
            members,
            padded,
            started: held.queue().tools.clock.now(),
            delay: held.delay(),
            running: Arc::new(running),
            held,
        }
    }

    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Sees that it runs; the caller goes on.
    pub(super) fn launch(self, tools: &Tools, threads: usize) {
        if self.delay.is_zero() {
            return self.submit(tools, threads);
        }
        let running = Arc::clone(&self.running);
        let (weak, at) = (Arc::downgrade(&running), self.started + self.delay);
        let again = tools.clone();
        // Held while the alarm is set, so that the alarm finds its work.
        let mut delayed = running.delayed.lock();
        let alarm = tools.timer.at(at, move || {
            let running = weak.upgrade();
            let taken = running.and_then(|running| running.delayed.lock().take());
            if let Some((work, alarm)) = taken {
                drop(alarm);
                work.submit(&again, threads);
            }
        });
        *delayed = Some((self, alarm));
        let abandoned = running.stop.is_set().then(|| delayed.take());
        drop(delayed);
        drop(abandoned);
    }

    fn submit(self, tools: &Tools, threads: usize) {
        let queue = Arc::clone(self.held.queue());
        let place = Arc::new(Mutex::new(Some(self)));
        let job = Arc::clone(&place);
        let submitted = tools.compute.submit(threads, move || {
            let work = job.lock().take();
            if let Some(work) = work {
                work.execute();
            }
        });
        if let Err(Refused::Full | Refused::Panicked) = submitted
            && let Some(work) = place.lock().take()
        {
            queue.refuse(work);
        }
    }

    /// On a compute thread.
    fn execute(mut self) {
        let began = self.held.queue().tools.clock.now();
        let queue = Arc::clone(self.held.queue());
        let mut members = Vec::with_capacity(self.members.len());
        for (ticket, pending) in std::mem::take(&mut self.members) {
            let gone = pending.reply.gone();
            if gone || pending.deadline.passed(began) {
                let error = Error::Timeout {
                    model: queue.model.clone(),
                    place: "waiting for a compute thread",
                };
                // Those who stay are the only ones who can stop the batch by leaving.
                queue.answered(ticket, pending.reply, Answered::without(error));
            } else {
                members.push((ticket, pending));
            }
        }
        if members.is_empty() {
            return;
        }
        let rows: usize = members.iter().map(|(_, pending)| pending.call.rows).sum();
        let padded = self.padded.max(rows);
        if members.len() == 1 && padded == rows {
            return self.alone(members, began);
        }
        match self.together(&members, padded, began) {
            Ok(answers) => {
                // Before the answers leave: the next batch need not wait for that.
                drop(self);
                for ((ticket, pending), answered) in members.into_iter().zip(answers) {
                    answer(&queue, ticket, pending.reply, answered);
                }
            }
            // One caller's input may be at fault, and the others' must not suffer for it.
            Err(Some(error)) if spoils_all(&error) || members.len() == 1 => {
                drop(self);
                let mut error = Some(error);
                for (ticket, pending) in members {
                    let one = error.take().unwrap_or_else(|| Error::Failed {
                        model: queue.model.clone(),
                        reason: "the batch failed".to_owned(),
                    });
                    answer(&queue, ticket, pending.reply, Answered::without(one));
                }
            }
            Err(_) => self.alone(members, began),
        }
    }

    /// One call of the engine for each.
    fn alone(mut self, members: Vec<Member>, began: Instant) {
        let queue = Arc::clone(self.held.queue());
        let clock = queue.tools.clock.clone();
        let mut from = began;
        let last = members.len().saturating_sub(1);
        let mut held = Some(self.held);
        for (index, (ticket, mut pending)) in members.into_iter().enumerate() {
            let Some(lane) = held.as_mut() else { return };
            let inputs = std::mem::take(&mut pending.call.inputs);
            let inputs = aligned(&queue, inputs);
            let ready = clock.now();
            let outputs = lane.run(&Run {
                inputs: &inputs,
                wanted: &pending.call.wanted,
                stop: &self.running.stop,
            });
            let end = clock.now();
            let rows = pending.call.rows;
            let done = done(&pending, (self.started, from, self.delay), (ready, end));
            if outputs.is_ok() {
                let bytes = inputs.iter().map(|input| input.data.len()).sum();
                queue.timed(bytes, end.saturating_duration_since(ready));
                queue.book(
                    pending.call.counts(),
                    (lane.lane(), rows),
                    &done,
                    end.saturating_duration_since(from) + self.delay,
                );
            }
            from = end;
            if index == last {
                held = None;
            }
            self.delay = Duration::ZERO;
            answer(&queue, ticket, pending.reply, Answered { outputs, done });
        }
    }

    /// One call of the engine for all. Without an error when their shapes do not fit together.
    fn together(
        &mut self,
        members: &[Member],
        padded: usize,
        began: Instant,
    ) -> Result<Vec<Answered>, Option<Error>> {
        let queue = Arc::clone(self.held.queue());
        let clock = &queue.tools.clock;
        let wanted = wanted(members);
        let inputs = gathered(&queue, members, padded).ok_or(None)?;
        let ready = clock.now();
        let repeated = queue.ragged.is_some().then(|| wanted.repeat(members.len()));
        let outputs = self.held.run(&Run {
            inputs: &inputs,
            wanted: repeated.as_ref().unwrap_or(&wanted),
            stop: &self.running.stop,
        });
        let outputs = outputs.map_err(Some)?;
        let end = clock.now();
        let parts = if queue.ragged.is_some() {
            outputs
                .chunks(wanted.len().max(1))
                .map(<[_]>::to_vec)
                .collect()
        } else {
            apart(&queue, members, &outputs, padded)?
        };
        let times = (self.started, began, self.delay);
        let mut answers = Vec::with_capacity(members.len());
        for (caller, (_, pending)) in members.iter().enumerate() {
            let own = pending.call.wanted.iter().filter_map(|index| {
                let place = wanted.iter().position(|wanted| wanted == index)?;
                parts.get(caller)?.get(place).cloned()
            });
            answers.push(Answered {
                outputs: Ok(own.collect()),
                done: done(pending, times, (ready, end)),
            });
        }
        if let Some(first) = answers.first() {
            let items = members.iter().map(|(_, pending)| pending.call.counts());
            // What rows run alone are spared is its cost, too: the copies into one input.
            queue.book(
                items.sum(),
                (self.held.lane(), padded),
                &first.done,
                end.saturating_duration_since(began) + self.delay,
            );
        }
        Ok(answers)
    }
}

impl Queue {
    /// No thread takes these batches. One frees a lane, whose next batch is refused as well: in a loop, for there may be as
    /// many as wait, and whoever comes back here meanwhile leaves its batch to who is at it.
    fn refuse(self: &Arc<Self>, work: Work) {
        let mut state = self.state.lock();
        state.refused.push(work);
        if std::mem::replace(&mut state.refusing, true) {
            return;
        }
        while let Some(mut work) = state.refused.pop() {
            drop(state);
            for (ticket, pending) in std::mem::take(&mut work.members) {
                let model = self.model.clone();
                let busy = Answered::without(Error::Busy { model });
                answer(self, ticket, pending.reply, busy);
            }
            drop(work);
            state = self.state.lock();
        }
        state.refusing = false;
    }

    /// Books one call of the engine, and learns from it; `run` is its lane and its rows, `took` the time that
    /// its lane computed or was held without.
    fn book(&self, items: usize, run: (usize, usize), done: &Done, took: Duration) {
        self.booked(items, done);
        self.learn(run, took);
    }
}

/// The inputs of one call for all of them; none when their shapes do not fit together.
fn gathered(queue: &Queue, members: &[Member], padded: usize) -> Option<Vec<Tensor>> {
    let callers = members
        .iter()
        .map(|(_, pending)| pending.call.inputs.as_slice());
    if queue.ragged.is_some() {
        return Some(callers.flatten().cloned().collect());
    }
    let callers: Vec<&[Tensor]> = callers.collect();
    gather::gather(&callers, padded, &queue.tools.buffers)
}

/// Each caller's outputs, in the order in which the engine gave them.
fn apart(
    queue: &Queue,
    members: &[Member],
    outputs: &[Tensor],
    padded: usize,
) -> Result<Vec<Vec<Tensor>>, Option<Error>> {
    let shares: Vec<usize> = members
        .iter()
        .map(|(_, pending)| pending.call.rows)
        .collect();
    let mut parts = vec![Vec::with_capacity(outputs.len()); members.len()];
    for output in outputs {
        let split = gather::split(output, &shares, padded).map_err(|reason| {
            Some(Error::Failed {
                model: queue.model.clone(),
                reason,
            })
        })?;
        for (own, part) in parts.iter_mut().zip(split) {
            own.push(part);
        }
    }
    Ok(parts)
}

/// Outputs that anybody wants, each once.
fn wanted(members: &[Member]) -> Vec<usize> {
    let all = members.iter().flat_map(|(_, pending)| &pending.call.wanted);
    let mut wanted: Vec<usize> = all.copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

fn aligned(queue: &Queue, inputs: Vec<Tensor>) -> Vec<Tensor> {
    if !queue.loaded.needs_alignment() {
        return inputs;
    }
    let aligned = inputs
        .into_iter()
        .map(|input| input.aligned(&queue.tools.buffers));
    aligned.collect()
}

/// An error that says nothing about any one caller's input.
fn spoils_all(error: &Error) -> bool {
    matches!(
        error,
        Error::Engine(
            EngineError::Stopped | EngineError::Gone { .. } | EngineError::Missing { .. }
        )
    )
}

fn done(
    pending: &Pending,
    (started, began, delay): (Instant, Instant, Duration),
    (ready, end): (Instant, Instant),
) -> Done {
    // In line, and for a thread once the lane was there and its delay over.
    let queue = began.saturating_duration_since(pending.arrived);
    let delay = delay.min(began.saturating_duration_since(started));
    Done {
        queue: queue.saturating_sub(delay),
        input: ready.saturating_duration_since(began),
        infer: end.saturating_duration_since(ready) + delay,
    }
}

/// A panic in what one caller makes of its answer costs that caller alone.
fn answer(queue: &Arc<Queue>, ticket: Ticket, reply: Box<dyn Reply>, answered: Answered) {
    let leaves = || queue.answered(ticket, reply, answered);
    if catch_unwind(AssertUnwindSafe(leaves)).is_err() {
        tracing::error!(model = queue.model, "preparing an answer panicked");
    }
}
