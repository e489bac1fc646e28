//! Who gets a slot, what waits: requests of one sequence run in order, one at a time, on the slot their sequence holds.
//!
//! ```text
//! START ──► a slot is free ──► held ──► END has run, or idle too long, or a waiting request's caller left ──► free
//!      └──► none is free ──► backlog (bounded) ──► held when a slot falls free, oldest sequence first
//! ```
//! A slot is a place in one lane's batches and stays with its sequence, because models keep their own state there. After
//! END the same id may start anew, even while the old sequence's requests still wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use protocol::CorrelationId;

/// How a model's sequences share its lanes.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceSettings {
    pub lanes: usize,
    /// Sequences that one lane takes at the same time.
    pub slots: usize,
    /// Requests in one batch; 1 for a model without a batch dimension.
    pub rows_max: usize,
    /// A sequence without a request for this long is ended.
    pub idle: Duration,
    /// How long the oldest request waits for a fuller batch.
    pub delay: Duration,
    /// Requests that are not waited beyond, ascending; empty waits for nothing.
    pub preferred: Vec<usize>,
    /// Requests waiting, of all sequences together; one more is refused.
    pub waiting_max: usize,
    /// Each sequence is one request, run as often as its model wants: it is over when that is, and never idle.
    pub iterative: bool,
}

/// Why a request cannot enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceRefused {
    /// The sequence is not known and the request does not start it.
    NotStarted,
    /// No place to wait; so many do.
    Full(usize),
}

/// A request's place in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub request: u64,
    /// Within the lane.
    pub slot: usize,
    pub start: bool,
    pub end: bool,
}

/// What a lane should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Run these together, then say [`Sequences::done`]; in the order of their slots.
    Run(Vec<Turn>),
    /// Ask again then, or when a request has entered.
    Wait(Instant),
    Nothing,
}

/// The sequences of one model.
#[derive(Debug)]
pub struct Sequences {
    settings: SequenceSettings,
    /// Lane after lane.
    slots: Vec<Option<Sequence>>,
    lanes: Vec<Running>,
    backlog: VecDeque<Sequence>,
    /// Sequences that take further requests: those whose END has not come.
    open: BTreeMap<CorrelationId, u64>,
    next_sequence: u64,
    next_request: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Sequence {
    /// Tells it from another sequence with the same id.
    number: u64,
    id: CorrelationId,
    queue: VecDeque<Queued>,
    /// END has come; it may still wait.
    closed: bool,
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    request: u64,
    start: bool,
    end: bool,
    since: Instant,
}

/// The slots that a lane's batch holds at the moment.
#[derive(Debug, Default)]
struct Running(Vec<usize>);

impl Sequences {
    pub fn new(settings: SequenceSettings) -> Self {
        let slots = settings.lanes.saturating_mul(settings.slots);
        Self {
            slots: (0..slots).map(|_| None).collect(),
            lanes: (0..settings.lanes).map(|_| Running::default()).collect(),
            settings,
            backlog: VecDeque::new(),
            open: BTreeMap::new(),
            next_sequence: 0,
            next_request: 0,
            waiting: 0,
        }
    }

    /// Whether a sequence of this id takes further requests.
    pub fn knows(&self, id: &CorrelationId) -> bool {
        self.open.contains_key(id)
    }

    /// Takes a request in and gives it a number. A START for a sequence that has not ended begins it anew in its place.
    pub fn enter(
        &mut self,
        id: &CorrelationId,
        (start, end): (bool, bool),
        now: Instant,
    ) -> Result<u64, SequenceRefused> {
        let known = self.open.get(id).copied();
        if known.is_none() && !start {
            return Err(SequenceRefused::NotStarted);
        }
        if self.waiting >= self.settings.waiting_max {
            return Err(SequenceRefused::Full(self.waiting));
        }
        let request = self.next_request;
        self.next_request += 1;
        self.waiting += 1;
        let queued = Queued {
            request,
            start,
            end,
            since: now,
        };
        let number = known.unwrap_or_else(|| self.begin(id, now));
        if let Some(sequence) = self.sequence(number) {
            sequence.queue.push_back(queued);
            sequence.last = now;
            sequence.closed |= end;
        }
        if end {
            self.open.remove(id);
        }
        Ok(request)
    }

    fn begin(&mut self, id: &CorrelationId, now: Instant) -> u64 {
        let number = self.next_sequence;
        self.next_sequence += 1;
        self.open.insert(id.clone(), number);
        let sequence = Sequence {
            number,
            id: id.clone(),
            queue: VecDeque::new(),
            closed: false,
            last: now,
        };
        match self.free_slot() {
            Some(slot) => self.slots[slot] = Some(sequence),
            None => self.backlog.push_back(sequence),
        }
        number
    }

    /// On the lane with the fewest sequences, so that lanes share the work.
    fn free_slot(&self) -> Option<usize> {
        // Slots that fall free go to the backlog first.
        let lanes = self.slots.chunks(self.settings.slots.max(1)).enumerate();
        let held = |slots: &[Option<Sequence>]| slots.iter().flatten().count();
        let (lane, slots) = lanes
            .filter(|(_, slots)| slots.iter().any(Option::is_none))
            .min_by_key(|(_, slots)| held(slots))?;
        let slot = slots.iter().position(Option::is_none)?;
        Some(lane * self.settings.slots + slot)
    }

    fn sequence(&mut self, number: u64) -> Option<&mut Sequence> {
        let held = self.slots.iter_mut().flatten();
        held.chain(&mut self.backlog)
            .find(|sequence| sequence.number == number)
    }

    /// What a lane should run now: at most one request of each of its sequences.
    pub fn next(&mut self, lane: usize, now: Instant) -> Next {
        let slots = self.settings.slots;
        if !self.lanes[lane].0.is_empty() {
            return Next::Nothing;
        }
        let range = lane * slots..(lane + 1) * slots;
        let head = |slot: usize| Some((slot, *self.slots[slot].as_ref()?.queue.front()?));
        let mut heads: Vec<(usize, Queued)> = range.clone().filter_map(head).collect();
        // Request numbers are the order of arrival.
        heads.sort_unstable_by_key(|(_, queued)| queued.request);
        let Some((_, oldest)) = heads.first() else {
            return Next::Nothing;
        };
        if let Some(until) = self
            .wait(heads.len(), oldest.since)
            .filter(|until| *until > now)
        {
            return Next::Wait(until);
        }
        heads.truncate(self.settings.rows_max.max(1));
        heads.sort_unstable_by_key(|(slot, _)| *slot);
        let mut turns = Vec::with_capacity(heads.len());
        for (slot, queued) in heads {
            if let Some(sequence) = &mut self.slots[slot] {
                sequence.queue.pop_front();
                self.waiting -= 1;
            }
            self.lanes[lane].0.push(slot);
            turns.push(Turn {
                request: queued.request,
                slot: slot - range.start,
                start: queued.start,
                end: queued.end,
            });
        }
        Next::Run(turns)
    }

    /// The request of an iterative sequence runs again, on the slot that it holds. It has been let in, so it is never
    /// refused; there is no more than one in each slot.
    pub fn again(&mut self, (lane, slot): (usize, usize), request: u64, now: Instant) {
        let held = self.slots.get_mut(lane * self.settings.slots + slot);
        if let Some(sequence) = held.and_then(Option::as_mut) {
            self.waiting += 1;
            sequence.queue.push_back(Queued {
                request,
                start: false,
                end: false,
                since: now,
            });
        }
    }

    /// Whether the sequence in this slot of a lane takes further runs.
    pub fn goes_on(&self, (lane, slot): (usize, usize)) -> bool {
        let held = self.slots.get(lane * self.settings.slots + slot);
        held.and_then(Option::as_ref)
            .is_some_and(|sequence| !sequence.closed)
    }

    /// The caller of an iterative sequence has left: that ends it, wherever its request is.
    pub fn quit(&mut self, id: &CorrelationId, now: Instant) {
        let Some(number) = self.open.get(id).copied() else {
            return;
        };
        let own = |sequence: &Sequence| sequence.number == number;
        if let Some(index) = self.backlog.iter().position(own) {
            if let Some(sequence) = self.backlog.remove(index) {
                self.close(&sequence);
                self.drop_queue(sequence.queue);
            }
            return;
        }
        let slot = self
            .slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(own));
        if let Some(slot) = slot {
            self.end_at(slot, now);
        }
    }

    /// Whether a request waits for this lane.
    pub fn waits(&self, lane: usize) -> bool {
        let slots = self.slots.chunks(self.settings.slots.max(1)).nth(lane);
        let mut sequences = slots.into_iter().flatten().flatten();
        sequences.any(|sequence| !sequence.queue.is_empty())
    }

    fn wait(&self, ready: usize, since: Instant) -> Option<Instant> {
        let SequenceSettings {
            delay,
            preferred,
            rows_max,
            ..
        } = &self.settings;
        let enough = ready >= *rows_max || preferred.iter().all(|size| ready >= *size);
        (!enough && !delay.is_zero()).then(|| since + *delay)
    }

    /// A lane's batch has run: sequences that ended free their slots. True if a waiting sequence got one.
    pub fn done(&mut self, lane: usize, now: Instant) -> bool {
        let mut moved = false;
        for slot in std::mem::take(&mut self.lanes[lane].0) {
            let Some(sequence) = &mut self.slots[slot] else {
                continue;
            };
            sequence.last = now;
            if sequence.closed && sequence.queue.is_empty() {
                moved |= self.release(slot, now);
            }
        }
        moved
    }

    /// Frees a slot and gives it to the oldest sequence that waits. True if there was one.
    fn release(&mut self, slot: usize, now: Instant) -> bool {
        if let Some(sequence) = self.slots[slot].take() {
            self.close(&sequence);
        }
        let Some(mut next) = self.backlog.pop_front() else {
            return false;
        };
        // It could not be idle while it had no slot.
        next.last = now;
        self.slots[slot] = Some(next);
        true
    }

    fn close(&mut self, sequence: &Sequence) {
        if self.open.get(&sequence.id) == Some(&sequence.number) {
            self.open.remove(&sequence.id);
        }
    }

    /// A waiting request's caller has left. Without it the rest of its sequence means nothing: that is ended, and the
    /// requests given back, which wait behind it, are to be told. A request that runs or has run changes nothing.
    pub fn leave(&mut self, request: u64, now: Instant) -> Vec<u64> {
        let holds = |sequence: &Sequence| {
            let mut queue = sequence.queue.iter();
            queue.any(|queued| queued.request == request)
        };
        if let Some(index) = self.backlog.iter().position(holds) {
            let sequence = self.backlog.remove(index);
            return sequence.map_or_else(Vec::new, |sequence| {
                self.close(&sequence);
                let mut others = self.drop_queue(sequence.queue);
                others.retain(|other| *other != request);
                others
            });
        }
        let found = self
            .slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(holds));
        let Some(slot) = found else {
            return Vec::new();
        };
        let mut others = self.end_at(slot, now);
        others.retain(|other| *other != request);
        others
    }

    /// What was kept for the sequence in this slot of a lane is lost: it is ended, and the requests given back, which
    /// wait in it, are to be told.
    pub fn end(&mut self, lane: usize, slot: usize, now: Instant) -> Vec<u64> {
        self.end_at(lane * self.settings.slots + slot, now)
    }

    /// As [`Self::end`], for all sequences of a lane.
    pub fn end_all(&mut self, lane: usize, now: Instant) -> Vec<u64> {
        let slots = 0..self.settings.slots;
        slots.flat_map(|slot| self.end(lane, slot, now)).collect()
    }

    fn end_at(&mut self, slot: usize, now: Instant) -> Vec<u64> {
        let Some(mut sequence) = self.slots.get_mut(slot).and_then(Option::take) else {
            return Vec::new();
        };
        let waited = self.drop_queue(std::mem::take(&mut sequence.queue));
        sequence.closed = true;
        self.close(&sequence);
        self.slots[slot] = Some(sequence);
        // While its request runs, the slot is the batch's.
        if !self.lanes.iter().any(|lane| lane.0.contains(&slot)) {
            self.release(slot, now);
        }
        waited
    }

    fn drop_queue(&mut self, queue: VecDeque<Queued>) -> Vec<u64> {
        self.waiting -= queue.len();
        queue.into_iter().map(|queued| queued.request).collect()
    }

    /// Ends sequences that have had no request for too long. True if a waiting sequence got a slot.
    pub fn expire(&mut self, now: Instant) -> bool {
        let mut moved = false;
        for slot in 0..self.slots.len() {
            if self.idle_at(slot).is_some_and(|at| at <= now) {
                moved |= self.release(slot, now);
            }
        }
        moved
    }

    /// When [`Self::expire`] is due while somebody waits for a slot.
    pub fn expires(&self) -> Option<Instant> {
        if self.backlog.is_empty() {
            return None;
        }
        (0..self.slots.len())
            .filter_map(|slot| self.idle_at(slot))
            .min()
    }

    fn idle_at(&self, slot: usize) -> Option<Instant> {
        let sequence = self.slots[slot].as_ref()?;
        let busy = self.lanes.iter().any(|lane| lane.0.contains(&slot));
        let idle = sequence.queue.is_empty() && !busy && !self.settings.iterative;
        idle.then(|| sequence.last + self.settings.idle)
    }

    /// Slots that sequences hold, and sequences that wait for one.
    pub fn held(&self) -> (usize, usize) {
        (self.slots.iter().flatten().count(), self.backlog.len())
    }
}

#[cfg(test)]
mod tests;
