//! Sequence batching: requests that belong together, in order, on the lane and slot where the model keeps their state.
//!
//! ```text
//! request ─► batch::Sequences (slot, backlog) ─► a lane's driver ─► plan (inputs, signals, states) ─► lane ─► answers
//! ```
//! A model with sequences has its lanes here and not in the queue, for a lane's state is its sequences'. One driver per
//! lane runs while something waits there; it outlives single callers, because a call that has begun moves the state on.
//! A batch for which nobody waits any more is stopped, and its sequences are ended: whether their states have moved on is
//! not known. So are all sequences of a lane that fails. A batch waits for a compute thread as long as its callers do.
//!
//! A request of a decoupled model has its lane for itself until its last answer (`many`).
//! Iterative sequences are one request each, which is run again, beside others' first and later times, for as long as the
//! model asks for it. They have no idle time: whoever waits for the answer holds the slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, Deadline, TaskKind, Tasks};
use batch::{Next, SequenceRefused, Sequences, Turn};
use parking_lot::Mutex;
use protocol::{BufferPool, Controls, CorrelationId, Tensor, Timing};
use tokio::sync::{Notify, oneshot};

use crate::call::{Call, Place};
use crate::compute::{ComputePool, Refused};
use crate::engine::Loaded;
use crate::error::Error;
use crate::lane::Slot;
use crate::limit::Limit;
use crate::statistics::Statistics;

/// How soon a batch asks again for a compute thread when too much waits for one: about a short call's time.
const COMPUTE_RETRY: Duration = Duration::from_millis(2);

mod answers;
mod batch_run;
mod gate;
mod guards;
mod many;
mod plan;
mod rows;
mod running;

pub(crate) use answers::Answers;
pub(crate) use plan::{Plan, settings};

use answers::Reply;
use gate::Gate;
use guards::{Driven, Held};
use running::{Ended, Running};

/// What a sequencer is built from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) model: String,
    pub(crate) loaded: Arc<dyn Loaded>,
    pub(crate) plan: Plan,
    pub(crate) sequences: Sequences,
    pub(crate) lanes: Vec<Slot>,
    /// One per lane, where the rate limiter counts.
    pub(crate) limits: Vec<Limit>,
    /// Cores of one call.
    pub(crate) threads: usize,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) clock: Clock,
    pub(crate) compute: ComputePool,
    pub(crate) buffers: BufferPool,
    pub(crate) tasks: Tasks,
}

/// One model's sequences.
#[derive(Debug)]
pub(crate) struct Sequencer {
    fixed: Fixed,
    /// One per lane: something has entered.
    wake: Vec<Notify>,
    /// By lane; empty where nothing is limited.
    gates: Vec<Gate>,
    state: Mutex<State>,
}

/// What does not change; a lane's run borrows it on a compute thread.
#[derive(Debug)]
struct Fixed {
    model: String,
    loaded: Arc<dyn Loaded>,
    plan: Plan,
    threads: usize,
    statistics: Arc<Statistics>,
    clock: Clock,
    compute: ComputePool,
    buffers: BufferPool,
    tasks: Tasks,
}

#[derive(Debug)]
struct State {
    sequences: Sequences,
    waiters: HashMap<u64, Waiter>,
    /// By request.
    running: HashMap<u64, Arc<Running>>,
    lanes: Vec<Lane>,
    /// Iterative requests whose reader has not taken what there is, and the lane and slot of each.
    resting: HashMap<u64, (usize, usize)>,
    /// Ids of iterative sequences given so far.
    iterative: u64,
}

#[derive(Debug)]
struct Lane {
    /// None while it runs.
    idle: Option<Box<Own>>,
    driven: bool,
}

/// A lane and what the server keeps for its sequences.
#[derive(Debug)]
struct Own {
    lane: Slot,
    /// Of each slot, each implicit state's last value.
    states: HashMap<usize, Vec<Tensor>>,
}

type Answer = Result<(Vec<Tensor>, Timing), Error>;

#[derive(Debug)]
struct Waiter {
    call: Call,
    id: CorrelationId,
    arrived: Instant,
    /// Of an iterative sequence's earlier runs.
    spent: Timing,
    reply: Reply,
}

/// One lane's batch on its way.
struct Work {
    own: Box<Own>,
    turns: Vec<(Turn, Waiter)>,
    running: Arc<Running>,
}

/// What a lane's batch has left behind.
struct Ran {
    /// None: the lane is lost.
    own: Option<Box<Own>>,
    ended: Ended,
    /// Iterative sequences that the model wants to run again.
    again: Vec<(Turn, Waiter)>,
}

impl Ran {
    fn over(own: Box<Own>, ended: Ended) -> Self {
        Self {
            own: Some(own),
            ended,
            again: Vec::new(),
        }
    }

    fn lost() -> Self {
        Self::over(Box::new(Own::empty()), Ended::Lane)
    }
}

impl Sequencer {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let lane = |lane| Lane {
            idle: Some(Box::new(Own {
                lane,
                states: HashMap::new(),
            })),
            driven: false,
        };
        Arc::new(Self {
            wake: parts.lanes.iter().map(|_| Notify::new()).collect(),
            gates: parts.limits.into_iter().map(Gate::new).collect(),
            state: Mutex::new(State {
                sequences: parts.sequences,
                waiters: HashMap::new(),
                running: HashMap::new(),
                lanes: parts.lanes.into_iter().map(lane).collect(),
                resting: HashMap::new(),
                iterative: 0,
            }),
            fixed: Fixed {
                model: parts.model,
                loaded: parts.loaded,
                plan: parts.plan,
                threads: parts.threads,
                statistics: parts.statistics,
                clock: parts.clock,
                compute: parts.compute,
                buffers: parts.buffers,
                tasks: parts.tasks,
            },
        })
    }

    /// Runs one request of a sequence; the outputs are as the call wants them. A request takes its place in its sequence at
    /// the first poll. Dropped while it waits, it ends its sequence; dropped while it runs with others, it changes nothing.
    pub(crate) async fn run(
        self: &Arc<Self>,
        place: Place<'_>,
        call: Call,
        controls: &Controls,
    ) -> Answer {
        let clock = &self.fixed.clock;
        let (answer, mut result) = oneshot::channel();
        let (request, id) = self.enter(call, controls, Reply::Once(answer))?;
        let mut place_held = Held {
            sequencer: self,
            request: Some(request),
            iterative: self.iterative().then_some(id),
        };
        loop {
            match tokio::time::timeout(self.nap(place.deadline), &mut result).await {
                Ok(answer) => {
                    place_held.request = None;
                    return answer.unwrap_or_else(|_| Err(self.lost()));
                }
                Err(_) if place.deadline.passed(clock.now()) => {
                    return Err(Error::Timeout {
                        model: self.fixed.model.clone(),
                        place: "in the sequence",
                    });
                }
                Err(_) => self.expire(),
            }
        }
    }

    /// Until the deadline, or until a sequence has been silent for too long.
    fn nap(&self, deadline: Deadline) -> Duration {
        let now = self.fixed.clock.now();
        let left = deadline.left(now);
        let idle = self.state.lock().sequences.expires();
        idle.map_or(left, |at| left.min(at.saturating_duration_since(now)))
    }

    /// Begins one request of a model that answers any number of times.
    pub(crate) fn stream(
        self: &Arc<Self>,
        deadline: Deadline,
        call: Call,
        controls: &Controls,
    ) -> Result<Answers, Error> {
        let (reply, made) = answers::channel();
        let place = self.enter(call, controls, reply)?;
        Ok(Answers::new(self, place, deadline, made))
    }

    /// Whether a request is a sequence of its own, whatever its parameters say.
    pub(crate) fn iterative(&self) -> bool {
        self.fixed.plan.iterative()
    }

    /// Triton's own words.
    fn admissible(&self, call: &Call, id: Option<&CorrelationId>) -> Result<(), Error> {
        let model = &self.fixed.model;
        let Some(id) = id else {
            let message = format!(
                "inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
            );
            return Err(Error::request("sequence_id", message));
        };
        if call.rows > 1 {
            let message = format!(
                "inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
            );
            return Err(Error::request("inputs", message));
        }
        self.fixed.plan.accepts(id)
    }

    /// Whether a sequence of this id has begun here and has not ended.
    pub(crate) fn knows(self: &Arc<Self>, id: &CorrelationId) -> bool {
        self.expire();
        self.state.lock().sequences.knows(id)
    }

    fn enter(
        self: &Arc<Self>,
        call: Call,
        controls: &Controls,
        reply: Reply,
    ) -> Result<(u64, CorrelationId), Error> {
        let now = self.fixed.clock.now();
        let mut state = self.state.lock();
        let (id, flags) = if self.iterative() {
            state.iterative += 1;
            let id = CorrelationId::Number(state.iterative);
            (Some(id), (true, false))
        } else {
            (controls.sequence.clone(), (controls.start, controls.end))
        };
        self.admissible(&call, id.as_ref())?;
        let id = id.unwrap_or(CorrelationId::Number(0));
        if state.sequences.expire(now) {
            self.kick(&mut state);
        }
        let request = state
            .sequences
            .enter(&id, flags, now)
            .map_err(|refused| self.refused(refused, &id))?;
        let waiter = Waiter {
            call,
            id: id.clone(),
            arrived: now,
            spent: Timing::default(),
            reply,
        };
        state.waiters.insert(request, waiter);
        self.kick(&mut state);
        Ok((request, id))
    }

    fn refused(&self, refused: SequenceRefused, id: &CorrelationId) -> Error {
        let model = self.fixed.model.clone();
        match refused {
            SequenceRefused::NotStarted => Error::request(
                "sequence_start",
                format!(
                    "inference request for sequence {id} to model '{model}' must specify the START flag on the first request of the sequence"
                ),
            ),
            SequenceRefused::Full(waiting) => Error::QueueFull { model, waiting },
        }
    }

    fn expire(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.sequences.expire(self.fixed.clock.now()) {
            self.kick(&mut state);
        }
    }

    /// Has every lane look for work; one that is driven already looks anyway.
    fn kick(self: &Arc<Self>, state: &mut State) {
        for (index, lane) in state.lanes.iter_mut().enumerate() {
            if lane.driven {
                self.wake[index].notify_one();
                continue;
            }
            if !state.sequences.waits(index) {
                continue;
            }
            lane.driven = true;
            let (own, name) = (Arc::clone(self), self.fixed.model.clone());
            let work = async move {
                own.drive(index).await;
                Ok(())
            };
            self.fixed.tasks.spawn(TaskKind::Sequences, name, work);
        }
    }

    async fn drive(self: &Arc<Self>, lane: usize) {
        let mut driven = Driven {
            sequencer: self,
            lane: Some(lane),
        };
        loop {
            let next = self.next(lane);
            let work = match next {
                Taken::Work(work) => work,
                Taken::Wait(until) => {
                    let nap = until.saturating_duration_since(self.fixed.clock.now());
                    let _entered = tokio::time::timeout(nap, self.wake[lane].notified()).await;
                    continue;
                }
                Taken::Nothing => {
                    driven.lane = None;
                    return;
                }
            };
            let permit = match self.gates.get(lane) {
                // Work that everybody has left runs nothing, so it needs none.
                Some(gate) => gate.pass(&work.running).await,
                None => None,
            };
            let delay = work.own.lane.delay(self.fixed.loaded.as_ref());
            if !delay.is_zero() {
                work.running.wait(delay).await;
            }
            let ran = match self.fixed.plan.many() {
                true => self.answer_each(work, delay).await,
                false => self.execute(work, delay).await,
            };
            drop(permit);
            let mut state = self.state.lock();
            self.finish(&mut state, lane, ran);
            self.kick(&mut state);
        }
    }

    /// A batch is over, and the lane is free.
    fn finish(&self, state: &mut State, lane: usize, ran: Ran) {
        let now = self.fixed.clock.now();
        state.lanes[lane].idle = ran.own;
        let lost = matches!(ran.ended, Ended::Lane);
        let sequences = &mut state.sequences;
        match ran.ended {
            Ended::Slots(slots) => {
                let ended = slots
                    .into_iter()
                    .flat_map(|slot| sequences.end(lane, slot, now));
                let waited: Vec<u64> = ended.collect();
                self.tell(state, waited, |model, sequence| Error::SequenceEnded {
                    model,
                    sequence,
                });
            }
            Ended::Lane => {
                let mut waited = sequences.end_all(lane, now);
                let resting = state.resting.extract_if(|_, (own, _)| *own == lane);
                waited.extend(resting.map(|(request, _)| request));
                self.tell(state, waited, |model, sequence| Error::SequenceLost {
                    model,
                    sequence,
                });
            }
        }
        state.running.retain(|_, running| running.lane != lane);
        for (turn, waiter) in ran.again {
            if lost {
                waiter.reply.fail(Error::SequenceLost {
                    model: self.fixed.model.clone(),
                    sequence: waiter.id.to_string(),
                });
            } else if waiter.reply.gone() || !state.sequences.goes_on((lane, turn.slot)) {
                state.sequences.end(lane, turn.slot, now);
            } else {
                let request = turn.request;
                if waiter.reply.has_room() {
                    state.sequences.again((lane, turn.slot), request, now);
                } else {
                    state.resting.insert(request, (lane, turn.slot));
                }
                state.waiters.insert(request, waiter);
            }
        }
        state.sequences.done(lane, now);
    }

    /// A reader has taken an answer: if its sequence waits for that, it runs again.
    fn go_on(self: &Arc<Self>, request: u64) {
        let mut state = self.state.lock();
        // The room that was made may have been filled again before this took the lock; the next answer that is taken wakes it then.
        let waiter = state.waiters.get(&request);
        if !waiter.is_some_and(|waiter| waiter.reply.has_room()) {
            return;
        }
        if let Some(place) = state.resting.remove(&request) {
            let now = self.fixed.clock.now();
            state.sequences.again(place, request, now);
            self.kick(&mut state);
        }
    }

    /// Requests whose sequence is no more.
    fn tell(&self, state: &mut State, waited: Vec<u64>, why: fn(String, String) -> Error) {
        for request in waited {
            if let Some(waiter) = state.waiters.remove(&request) {
                let error = why(self.fixed.model.clone(), waiter.id.to_string());
                waiter.reply.fail(error);
            }
        }
    }

    fn next(&self, lane: usize) -> Taken {
        let mut state = self.state.lock();
        let state = &mut *state;
        let turns = match state.sequences.next(lane, self.fixed.clock.now()) {
            Next::Run(turns) => turns,
            Next::Wait(until) => return Taken::Wait(until),
            Next::Nothing => {
                state.lanes[lane].driven = false;
                return Taken::Nothing;
            }
        };
        let waiters = &mut state.waiters;
        let with_waiter = |turn: Turn| {
            let waiter = waiters.remove(&turn.request)?;
            Some((turn, waiter))
        };
        let turns: Vec<(Turn, Waiter)> = turns.into_iter().filter_map(with_waiter).collect();
        let own = state.lanes[lane].idle.take();
        let running = Arc::new(Running::new(lane, turns.len()));
        for (turn, _) in &turns {
            state.running.insert(turn.request, Arc::clone(&running));
        }
        Taken::Work(Work {
            turns,
            running,
            own: own.unwrap_or_else(|| Box::new(Own::empty())),
        })
    }

    /// Runs a batch here when it is small, else on a compute thread; gives the lane back.
    async fn execute(self: &Arc<Self>, work: Work, delay: Duration) -> Ran {
        let bytes = work.turns.iter().map(|(_, waiter)| waiter.call.bytes());
        if bytes.sum::<usize>() <= self.fixed.loaded.inline_bytes_max() {
            return self.fixed.run(work, delay);
        }
        let running = Arc::clone(&work.running);
        let place = Arc::new(Mutex::new(Some(work)));
        loop {
            let (sequencer, job) = (Arc::clone(self), Arc::clone(&place));
            let (back, result) = oneshot::channel();
            let submitted = self.fixed.compute.submit(self.fixed.threads, move || {
                let work = job.lock().take();
                if let Some(work) = work {
                    let _gone = back.send(sequencer.fixed.run(work, delay));
                }
            });
            match submitted {
                Ok(()) => {
                    let ran = result.await;
                    return ran.unwrap_or_else(|_| Ran::lost());
                }
                // Its sequences have their places and states: refusing it now would lose them.
                Err(Refused::Full | Refused::Panicked) if !running.abandoned() => {
                    running.wait(COMPUTE_RETRY).await;
                }
                Err(Refused::Full | Refused::Panicked) => {
                    let work = place.lock().take();
                    return work.map_or_else(Ran::lost, |work| self.fixed.run(work, delay));
                }
            }
        }
    }

    /// A caller is gone; `iterative` is the sequence that goes with it.
    fn leave(self: &Arc<Self>, request: u64, iterative: Option<&CorrelationId>) {
        let mut state = self.state.lock();
        let now = self.fixed.clock.now();
        let others = match iterative {
            Some(id) => {
                state.sequences.quit(id, now);
                Vec::new()
            }
            None => state.sequences.leave(request, now),
        };
        state.resting.remove(&request);
        state.waiters.remove(&request);
        self.tell(&mut state, others, |model, sequence| Error::SequenceEnded {
            model,
            sequence,
        });
        if let Some(running) = state.running.remove(&request) {
            running.leave();
        }
        self.kick(&mut state);
    }

    fn lost(&self) -> Error {
        Error::Failed {
            model: self.fixed.model.clone(),
            reason: "the call was dropped by its thread".to_owned(),
        }
    }

    /// Slots held, and sequences that wait for one.
    #[cfg(test)]
    fn held(&self) -> (usize, usize) {
        self.state.lock().sequences.held()
    }
}

enum Taken {
    Work(Work),
    Wait(Instant),
    Nothing,
}

impl Own {
    /// Its lane is built when it is next needed; its sequences' states are lost.
    fn empty() -> Self {
        Self {
            lane: Slot::empty(),
            states: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
