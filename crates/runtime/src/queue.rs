//! Who runs next, and where: this executes what [`batch::Batcher`] decides.
//!
//! ```text
//! call ──► direct: a lane is free, the engine runs where the caller is ──► Held
//!     └──► waiting ──► turn: a batch ──► Work on a compute thread ──► each caller's answer
//!              │           └─ or, for a decoupled model's call, a lane of its own ──► Held
//!              └──► expired, refused, or its caller is gone
//! ```
//! A turn is taken after each event: an arrival, a lane that is free again, the alarm of what waits. Dropping `Held` hands
//! the lane to whoever is next; dropping a caller's [`Place`] takes it out of line or, when it was the last one who waited
//! for a running batch, stops that.

mod direct;
mod held;
mod pace;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use base::{Clock, Deadline};
use batch::{Batch, Batcher, Expired, Full, Request, Settings, Ticket, Why};
use parking_lot::{Mutex, MutexGuard};
use protocol::BufferPool;
use tokio::sync::oneshot;

use crate::call::Call;
use crate::compute::ComputePool;
use crate::engine::Loaded;
use crate::error::Error;
use crate::gather;
use crate::lane::Slot;
use crate::limit::{Limit, Waits};
use crate::ragged;
use crate::statistics::Statistics;
use crate::timer::{Alarm, Timer};

use direct::Blocking;
pub(crate) use direct::{Direct, Thread};
pub(crate) use held::Held;
use pace::Paces;
pub(crate) use work::{Answered, Done, Reply};
use work::{Running, Work};

/// What a queue works with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) clock: Clock,
    pub(crate) compute: ComputePool,
    pub(crate) buffers: BufferPool,
    pub(crate) timer: Timer,
}

pub(crate) struct Queue {
    pub(crate) model: String,
    pub(crate) loaded: Arc<dyn Loaded>,
    pub(crate) statistics: Arc<Statistics>,
    tools: Tools,
    /// Cores of one call.
    threads: usize,
    /// What running batches of several models share.
    limit: Option<Limit>,
    /// Requests may meet in a batch.
    batches: bool,
    /// How requests of different shapes do.
    ragged: Option<Arc<ragged::Plan>>,
    state: Mutex<State>,
}

struct State {
    batcher: Batcher,
    paces: Paces,
    blocking: Blocking,
    /// By lane; empty while it runs.
    slots: Vec<Option<Slot>>,
    waiting: BTreeMap<Ticket, Waiter>,
    running: BTreeMap<Ticket, Arc<Running>>,
    /// Answers that others have to leave before.
    finished: BTreeMap<Ticket, (Box<dyn Reply>, Answered)>,
    alarm: Option<Alarm>,
    /// Batches that no compute thread takes, as many as lanes at most.
    refused: Vec<Work>,
    /// Somebody tells their callers.
    refusing: bool,
}

/// What somebody in line gets.
enum Waiter {
    /// A lane, for as long as they want it.
    Lane(oneshot::Sender<Result<Held, Error>>),
    /// The answer to a call.
    Call(Box<Pending>),
}

/// A call in line.
pub(crate) struct Pending {
    pub(crate) call: Call,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Deadline,
    pub(crate) reply: Box<dyn Reply>,
}

/// A caller's place: in line, or in a running batch.
pub(crate) struct Place {
    queue: Arc<Queue>,
    ticket: Ticket,
    left: bool,
}

/// What a turn found to do; done when the lock is gone.
enum Step {
    Hand(oneshot::Sender<Result<Held, Error>>, Held),
    Run(Work),
    Refuse(Waiter, Error),
    Answer(Box<dyn Reply>, Answered),
}

impl Queue {
    pub(crate) fn new(
        (model, loaded, ragged): (&str, Arc<dyn Loaded>, Option<Arc<ragged::Plan>>),
        slots: Vec<Slot>,
        settings: Settings,
        (statistics, threads): (Arc<Statistics>, usize),
        (tools, limit): (Tools, Option<Limit>),
    ) -> Arc<Self> {
        let mut settings = Settings {
            lanes: slots.len(),
            ..settings
        };
        if ragged.is_some() {
            // A row of filling would be one of an unknown length.
            settings.buckets.clear();
        }
        let queue = Arc::new(Self {
            model: model.to_owned(),
            loaded,
            statistics,
            tools,
            threads,
            limit,
            batches: settings.rows_max > 1,
            ragged,
            state: Mutex::new(State {
                batcher: Batcher::new(settings),
                paces: Paces::default(),
                blocking: Blocking::default(),
                slots: slots.into_iter().map(Some).collect(),
                waiting: BTreeMap::new(),
                running: BTreeMap::new(),
                finished: BTreeMap::new(),
                alarm: None,
                refused: Vec::new(),
                refusing: false,
            }),
        });
        if let Some(limit) = &queue.limit {
            let weak: Weak<Self> = Arc::downgrade(&queue);
            limit.serve(weak);
        }
        queue
    }

    /// Whether it joins requests in one batch.
    pub(crate) fn batches(&self) -> bool {
        self.batches
    }

    fn hold(self: &Arc<Self>, state: &mut State, lane: usize) -> Option<Held> {
        let slot = state.slots.get_mut(lane)?.take()?;
        Some(Held::new(Arc::clone(self), lane, slot))
    }

    fn request(&self, call: &Call, deadline: Deadline) -> Request {
        Request {
            rows: call.rows,
            class: call.class,
            priority: call.priority,
            timeout: call.timeout,
            deadline: deadline.instant(),
            lane: call.lane,
        }
    }

    /// Waits for a lane of one's own until the deadline, among the calls in line and by the same rules; of `asks` only its
    /// priority and timeout count. Cancel-safe: a dropped future leaves the line, or passes its lane on.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        asks: Call,
        deadline: Deadline,
        clock: &Clock,
    ) -> Result<Held, Error> {
        let left = deadline.left(clock.now());
        if left.is_zero() {
            return Err(self.late());
        }
        let (hand_over, lane) = oneshot::channel();
        // No rows: it shares its lane with nobody.
        let request = Request {
            rows: 0,
            ..self.request(&asks, deadline)
        };
        let _place = self.enter(request, Waiter::Lane(hand_over))?;
        // The sender lives in the queue until it is used, and the place keeps the queue alive.
        let handed = tokio::time::timeout(left, lane).await;
        handed
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(self.late()))
    }

    /// Puts a call in line. Its answer, or why there is none, comes through its reply.
    pub(crate) fn submit(self: &Arc<Self>, pending: Box<Pending>) -> Result<Place, Error> {
        let mut request = self.request(&pending.call, pending.deadline);
        if self.batches && request.rows > 0 {
            let inputs = &pending.call.inputs;
            request.class = match &self.ragged {
                Some(ragged) => ragged.class(request.class, inputs),
                None => gather::class(request.class, inputs),
            };
        }
        self.enter(request, Waiter::Call(pending))
    }

    fn enter(self: &Arc<Self>, request: Request, waiter: Waiter) -> Result<Place, Error> {
        let mut state = self.state.lock();
        let arrived = state.batcher.arrive(self.tools.clock.now(), request);
        let ticket = arrived.map_err(|Full { waiting }| Error::QueueFull {
            model: self.model.clone(),
            waiting,
        })?;
        state.waiting.insert(ticket, waiter);
        self.turn(state);
        Ok(Place {
            queue: Arc::clone(self),
            ticket,
            left: false,
        })
    }

    fn release(self: &Arc<Self>, lane: usize, slot: Slot) {
        let mut state = self.state.lock();
        if let Some(place) = state.slots.get_mut(lane) {
            *place = Some(slot);
        }
        state.batcher.done(lane);
        state.blocking.ended(lane);
        let more = state.batcher.waiting() > 0;
        if let Some(limit) = &self.limit {
            drop(state);
            limit.give_back(more);
            state = self.state.lock();
        }
        self.turn(state);
    }

    /// Does what is due now.
    fn turn(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.batcher.waiting() == 0 {
            // The way of every call that met nobody.
            return;
        }
        let mut steps = Vec::new();
        let now = self.tools.clock.now();
        for expired in state.batcher.expired(now) {
            steps.extend(state.unanswered(expired.ticket));
            if let Some(waiter) = state.waiting.remove(&expired.ticket) {
                steps.push(Step::Refuse(waiter, self.expired(expired)));
            }
        }
        let mut grant = || self.limit.as_ref().is_none_or(Limit::take);
        while let Some(batch) = state.batcher.next(now, &mut grant) {
            steps.extend(self.start(&mut state, &batch));
        }
        self.set_alarm(&mut state);
        let waiting = state.batcher.waiting();
        self.statistics.waiting(waiting);
        drop(state);
        self.rest(waiting);
        self.take(steps);
    }

    /// Whoever has nothing to run stands in nobody's way.
    fn rest(&self, waiting: usize) {
        if let Some(limit) = self.limit.as_ref().filter(|_| waiting == 0) {
            limit.rest();
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, batch: &Batch) -> Vec<Step> {
        let Some(held) = self.hold(state, batch.lane) else {
            return Vec::new();
        };
        let mut members = Vec::with_capacity(batch.tickets.len());
        for ticket in &batch.tickets {
            match state.waiting.remove(ticket) {
                Some(Waiter::Call(pending)) => members.push((*ticket, pending)),
                Some(Waiter::Lane(hand_over)) => {
                    // Its answers are its own affair; nobody waits for them.
                    let mut steps = state.unanswered(*ticket);
                    steps.push(Step::Hand(hand_over, held));
                    return steps;
                }
                None => {}
            }
        }
        let work = Work::new(held, members, batch.padded);
        for ticket in &batch.tickets {
            state.running.insert(*ticket, Arc::clone(work.running()));
        }
        vec![Step::Run(work)]
    }

    fn set_alarm(self: &Arc<Self>, state: &mut State) {
        let Some(at) = state.batcher.wake() else {
            return;
        };
        // One that comes too early only takes a turn.
        if state.alarm.as_ref().is_some_and(|alarm| alarm.at() <= at) {
            return;
        }
        let queue = Arc::downgrade(self);
        let alarm = self.tools.timer.at(at, move || {
            if let Some(queue) = queue.upgrade() {
                queue.state.lock().alarm = None;
                queue.wake();
            }
        });
        state.alarm = Some(alarm);
    }

    fn take(self: &Arc<Self>, steps: Vec<Step>) {
        for step in steps {
            match step {
                // Whoever left meanwhile gives the lane back here.
                Step::Hand(hand_over, held) => drop(hand_over.send(Ok(held))),
                Step::Run(work) => work.launch(&self.tools, self.threads),
                Step::Refuse(Waiter::Lane(hand_over), error) => drop(hand_over.send(Err(error))),
                Step::Refuse(Waiter::Call(pending), error) => {
                    pending.reply.answer(Answered::without(error));
                }
                Step::Answer(reply, answered) => reply.answer(answered),
            }
        }
    }

    /// A call of a batch has its answer, or the reason why not; it leaves now, or when those before it have left.
    fn answered(self: &Arc<Self>, ticket: Ticket, reply: Box<dyn Reply>, answered: Answered) {
        let mut state = self.state.lock();
        let running = state.running.remove(&ticket);
        let mut steps = Vec::new();
        match running {
            Some(_) if state.batcher.settings().ordered => {
                state.finished.insert(ticket, (reply, answered));
                let leaving = state.batcher.answered(ticket);
                steps = state.leaving(leaving);
            }
            // Without one the caller has left, and the order has been told.
            _ => steps.push(Step::Answer(reply, answered)),
        }
        drop(state);
        if let Some(running) = running {
            running.leave();
        }
        self.take(steps);
    }

    /// Books one call that ran directly.
    pub(crate) fn booked(&self, items: usize, done: &Done) {
        let timing = done.timing();
        self.statistics.executed(items, &timing, &self.tools.clock);
    }

    /// Remembers how long a call for one caller took.
    pub(crate) fn timed(&self, bytes: usize, took: std::time::Duration) {
        if self.loaded.steady() {
            self.state.lock().paces.learn(bytes, took);
        }
    }

    fn learn(&self, (lane, rows): (usize, usize), took: std::time::Duration) {
        self.state.lock().batcher.learn(lane, rows, took);
    }

    fn late(&self) -> Error {
        Error::Timeout {
            model: self.model.clone(),
            place: "in the queue",
        }
    }

    fn expired(&self, expired: Expired) -> Error {
        match expired.why {
            Why::Deadline => self.late(),
            Why::Timeout => Error::Expired {
                model: self.model.clone(),
            },
        }
    }

    /// Calls in line.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().batcher.waiting()
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.state.lock().batcher.idle()
    }
}

impl Waits for Queue {
    fn wake(self: Arc<Self>) {
        self.turn(self.state.lock());
    }
}

impl State {
    fn unanswered(&mut self, ticket: Ticket) -> Vec<Step> {
        let leaving = self.batcher.unanswered(ticket);
        self.leaving(leaving)
    }

    fn leaving(&mut self, tickets: Vec<Ticket>) -> Vec<Step> {
        let finished = tickets
            .into_iter()
            .filter_map(|ticket| self.finished.remove(&ticket));
        finished
            .map(|(reply, answered)| Step::Answer(reply, answered))
            .collect()
    }
}

impl Place {
    /// Where the call is now, for messages.
    pub(crate) fn whereabouts(&self) -> &'static str {
        let state = self.queue.state.lock();
        if state.waiting.contains_key(&self.ticket) {
            "in the queue"
        } else if state
            .running
            .get(&self.ticket)
            .is_some_and(|running| running.waits())
        {
            "in the artificial delay"
        } else {
            "while the engine ran"
        }
    }

    /// The answer is here; there is nothing to leave any more.
    pub(crate) fn settled(mut self) {
        self.left = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let mut state = self.queue.state.lock();
        let waited = state.batcher.leave(self.ticket);
        let waiter = state.waiting.remove(&self.ticket);
        let running = state.running.remove(&self.ticket);
        let finished = state.finished.remove(&self.ticket);
        let steps = state.unanswered(self.ticket);
        let waiting = state.batcher.waiting();
        drop(state);
        if waited {
            self.queue.statistics.waiting(waiting);
            self.queue.rest(waiting);
        }
        drop((waiter, finished));
        if let Some(running) = running {
            running.leave();
        }
        self.queue.take(steps);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("model", &self.model)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
