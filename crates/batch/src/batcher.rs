//! Who waits and who runs.
//!
//! ```text
//! arrive ──► waiting ──► next: a batch on an idle lane ──► done: the lane is idle again
//!               ├──► expired: its deadline or its policy's timeout has come, whatever runs
//!               └──► leave: the caller is gone
//! ```
//! Whoever drives this calls `expired` and `next` after each event, and again at `wake`.

mod fixed;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::order::Order;
use crate::worth::{Size, Worth};
use crate::{Latency, OnTimeout, Request, Settings, Ticket};

/// The latest that a request may ask to be due: beyond, it would only be further behind.
const OWN_TARGET_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub struct Batcher {
    settings: Settings,
    waiting: BTreeMap<Ticket, Entry>,
    levels: Vec<Level>,
    /// The next moment at which something happens to each that waits.
    expiry: BTreeSet<(Instant, Ticket)>,
    /// The one used last is used next: its caches are warm.
    idle: Vec<usize>,
    /// How many of those that wait need one given lane.
    pinned: usize,
    next: u64,
    latency: Latency,
    worth: Worth,
    /// By lane, what it was given last.
    runs: Vec<Run>,
    credit: target::Credit,
    order: Option<Order>,
    /// Until when a batch that could start is held back to grow.
    hold: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    request: Request,
    level: usize,
    arrived: Instant,
    /// Its place in the level's line: when it came, or by when it should be answered.
    key: Instant,
    late: bool,
}

/// What a lane runs.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// All other lanes ran, too, so that what it takes is what rows cost under load.
    busy: bool,
    trial: bool,
}

/// What waits at one priority.
#[derive(Debug, Default)]
struct Level {
    line: BTreeSet<(Instant, Ticket)>,
    /// Behind the line: what has waited longer than it should.
    late: BTreeSet<(Instant, Ticket)>,
}

/// Requests to be run together now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub lane: usize,
    /// In the order of the rows.
    pub tickets: Vec<Ticket>,
    /// 0 for a model without a batch dimension.
    pub rows: usize,
    /// Rows to fill up to; `rows` when there is nothing to gain.
    pub padded: usize,
}

/// A request that gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub waiting: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    pub ticket: Ticket,
    pub why: Why,
}

/// Why a request left the queue unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody waits any more.
    Deadline,
    /// The queue's policy allows no longer wait.
    Timeout,
}

/// What to do with an idle lane.
enum Choice {
    /// And whether that is a trial.
    Run(Vec<Ticket>, bool),
    /// More may come: look again then.
    Hold(Instant),
    Nothing,
}

impl Batcher {
    pub fn new(settings: Settings) -> Self {
        let levels = settings.levels.iter().map(|_| Level::default()).collect();
        Self {
            waiting: BTreeMap::new(),
            levels,
            expiry: BTreeSet::new(),
            idle: (0..settings.lanes).rev().collect(),
            pinned: 0,
            next: 0,
            latency: Latency::default(),
            worth: Worth::default(),
            runs: vec![Run::default(); settings.lanes],
            credit: target::Credit::new(),
            order: settings.ordered.then(Order::default),
            hold: None,
            settings,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Requests in line.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lanes without a batch.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// A lane for a request that need not wait for others, when nobody is in line; it counts as running. For callers who
    /// would rather run it where they are.
    pub fn direct(&mut self, request: &Request) -> Option<usize> {
        let settings = &self.settings;
        let alone = settings.rows_max <= 1 || settings.delay.is_zero();
        if !self.waiting.is_empty() || !alone || settings.ordered {
            return None;
        }
        let lane = match request.lane {
            None => self.idle.pop(),
            Some(lane) => self.occupy(lane).then_some(lane),
        };
        lane.inspect(|lane| self.begin(*lane, None))
    }

    /// `trial`: rows, if that is what they run for.
    fn begin(&mut self, lane: usize, trial: Option<usize>) {
        let busy = self.idle.is_empty();
        if let Some(run) = self.runs.get_mut(lane) {
            *run = Run {
                busy,
                trial: trial.is_some(),
            };
        }
        if let Some(rows) = trial {
            self.worth.begin_trial(rows);
        }
    }

    fn occupy(&mut self, lane: usize) -> bool {
        let place = self.idle.iter().position(|idle| *idle == lane);
        place.is_some_and(|place| {
            self.idle.remove(place);
            true
        })
    }

    /// Puts a request in line.
    pub fn arrive(&mut self, now: Instant, request: Request) -> Result<Ticket, Full> {
        let index = self.settings.level(request.priority);
        let policy = self.settings.levels[index];
        let level = &self.levels[index];
        let waiting = level.line.len() + level.late.len();
        // Whoever finds a free lane does not wait, so no bound keeps it out.
        let passes = self.waiting.is_empty() && !self.idle.is_empty();
        let level_full = policy.waiting_max.is_some_and(|max| waiting >= max);
        if !passes && (level_full || self.waiting.len() >= self.settings.waiting_max) {
            let waiting = if level_full {
                waiting
            } else {
                self.waiting.len()
            };
            return Err(Full { waiting });
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let key = match self.settings.target {
            None => now,
            Some(target) => {
                self.credit.arrived(request.rows.max(1));
                let asked = request.timeout.filter(|asked| !asked.is_zero());
                // Bounded, for it comes from outside.
                let own = asked.unwrap_or(target).min(OWN_TARGET_MAX);
                (now + own).min(request.deadline)
            }
        };
        let entry = Entry {
            request,
            level: index,
            arrived: now,
            key,
            late: false,
        };
        let timeout = policy.allowed(request.timeout).map(|allowed| now + allowed);
        let expires = timeout.map_or(request.deadline, |at| at.min(request.deadline));
        self.levels[index].line.insert((key, ticket));
        self.expiry.insert((expires, ticket));
        self.waiting.insert(ticket, entry);
        self.pinned += usize::from(request.lane.is_some());
        if let Some(order) = &mut self.order {
            order.begin(ticket);
        }
        Ok(ticket)
    }

    /// Takes those out of line whose time is over. Each is named once.
    pub fn expired(&mut self, now: Instant) -> Vec<Expired> {
        let mut expired = Vec::new();
        while let Some((at, ticket)) = self.expiry.first().copied() {
            if at > now {
                break;
            }
            let Some(entry) = self.waiting.get(&ticket).copied() else {
                self.expiry.pop_first();
                continue;
            };
            let why = if entry.request.deadline <= at {
                Why::Deadline
            } else {
                Why::Timeout
            };
            let action = self.settings.levels[entry.level].action;
            if why == Why::Timeout && action == OnTimeout::Delay {
                self.expiry.pop_first();
                self.expiry.insert((entry.request.deadline, ticket));
                self.put_behind(ticket);
            } else {
                self.remove(ticket);
                expired.push(Expired { ticket, why });
            }
        }
        expired
    }

    /// Moves a request behind the others of its level.
    fn put_behind(&mut self, ticket: Ticket) {
        if let Some(entry) = self.waiting.get_mut(&ticket)
            && !entry.late
        {
            entry.late = true;
            let level = &mut self.levels[entry.level];
            level.line.remove(&(entry.key, ticket));
            level.late.insert((entry.key, ticket));
        }
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Entry> {
        let entry = self.waiting.remove(&ticket)?;
        let level = &mut self.levels[entry.level];
        let side = if entry.late {
            &mut level.late
        } else {
            &mut level.line
        };
        side.remove(&(entry.key, ticket));
        let timeout = self.settings.levels[entry.level].allowed(entry.request.timeout);
        // One of the two is there.
        self.expiry.remove(&(entry.request.deadline, ticket));
        if let Some(timeout) = timeout {
            self.expiry.remove(&(entry.arrived + timeout, ticket));
        }
        self.pinned -= usize::from(entry.request.lane.is_some());
        Some(entry)
    }

    /// The caller is gone. False when it was not in line any more.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.remove(ticket).is_some()
    }

    /// The next batch to run, if one should start now and `grant` lets it. To be called until there is none.
    pub fn next(&mut self, now: Instant, grant: &mut dyn FnMut() -> bool) -> Option<Batch> {
        self.hold = None;
        if self.waiting.is_empty() {
            return None;
        }
        for place in (0..self.idle.len()).rev() {
            let lane = self.idle[place];
            match self.choose(now, lane) {
                Choice::Run(tickets, trial) => {
                    if !grant() {
                        return None;
                    }
                    self.idle.remove(place);
                    let batch = self.start(lane, tickets);
                    self.begin(lane, trial.then_some(batch.rows));
                    return Some(batch);
                }
                Choice::Hold(until) => {
                    self.hold = Some(self.hold.map_or(until, |hold| hold.min(until)));
                }
                Choice::Nothing => {}
            }
            if self.pinned == 0 {
                // To every other lane the same would be said.
                break;
            }
        }
        None
    }

    /// The first class in order that should start; one that is held back lets the others pass.
    fn choose(&mut self, now: Instant, lane: usize) -> Choice {
        let mut held = Vec::new();
        let mut first: Option<Instant> = None;
        loop {
            let class = |(_, entry): (Ticket, &Entry)| entry.request.class;
            let next = self.in_order(lane).map(class);
            let Some(class) = next.into_iter().find(|class| !held.contains(class)) else {
                return first.map_or(Choice::Nothing, Choice::Hold);
            };
            let choice = match self.settings.target {
                Some(target) => self.by_target(now, (lane, class), target),
                None => self.by_size(now, (lane, class)),
            };
            let Choice::Hold(until) = choice else {
                return choice;
            };
            first = Some(first.map_or(until, |first| first.min(until)));
            held.push(class);
        }
    }

    fn start(&mut self, lane: usize, tickets: Vec<Ticket>) -> Batch {
        let mut rows = 0;
        for ticket in &tickets {
            if let Some(entry) = self.remove(*ticket) {
                rows += entry.request.rows;
            }
        }
        Batch {
            lane,
            tickets,
            rows,
            padded: self.latency.padded(rows, &self.settings.buckets),
        }
    }

    /// In the order in which they should run on this lane: level by level, each one's line before its late ones.
    fn in_order(&self, lane: usize) -> impl Iterator<Item = (Ticket, &Entry)> {
        let tickets = self
            .levels
            .iter()
            .flat_map(|level| level.line.iter().chain(&level.late));
        tickets
            .filter_map(|(_, ticket)| Some((*ticket, self.waiting.get(ticket)?)))
            .filter(move |(_, entry)| entry.request.lane.is_none_or(|only| only == lane))
    }

    fn of_class(&self, (lane, class): (usize, u64)) -> impl Iterator<Item = (Ticket, &Entry)> {
        self.in_order(lane)
            .filter(move |(_, entry)| entry.request.class == class)
    }

    /// When to look again, if nothing else happens before.
    pub fn wake(&self) -> Option<Instant> {
        let expiry = self.expiry.first().map(|(at, _)| *at);
        match (expiry, self.hold) {
            (Some(expiry), Some(hold)) => Some(expiry.min(hold)),
            (expiry, hold) => expiry.or(hold),
        }
    }

    /// A lane is free again.
    pub fn done(&mut self, lane: usize) {
        debug_assert!(!self.idle.contains(&lane), "lane {lane} was not busy");
        self.idle.push(lane);
        if let Some(run) = self.runs.get_mut(lane)
            && std::mem::take(run).trial
        {
            self.worth.end_trial();
        }
    }

    /// How long the engine took for so many rows on a lane that is not done yet.
    pub fn learn(&mut self, lane: usize, rows: usize, took: Duration) {
        let rows = rows.max(1);
        self.latency.observe(rows, took);
        let run = self.runs.get(lane).copied().unwrap_or_default();
        if run.busy && self.settings.rows_max > 1 {
            self.worth.observe(rows, took, run.trial);
        }
    }

    /// Rows to run together of those of one class that wait, `most` at most; none when nothing is known against any size.
    fn worthwhile(&self, group: (usize, u64), most: usize) -> Size {
        let mut rows = 0;
        for (_, entry) in self.of_class(group) {
            rows += entry.request.rows;
            if rows >= most {
                break;
            }
        }
        let fills = |size| {
            let sums = self.of_class(group).scan(0, |sum, (_, entry)| {
                *sum += entry.request.rows;
                Some(*sum)
            });
            sums.take_while(|sum| *sum <= size).last() == Some(size)
        };
        self.worth.choose(rows.min(most), fills)
    }

    /// An answer is there: whose answers may leave now, in order. All others are held back.
    pub fn answered(&mut self, ticket: Ticket) -> Vec<Ticket> {
        match &mut self.order {
            Some(order) => order.ready(ticket),
            None => vec![ticket],
        }
    }

    /// There will be no answer to hold others back for: whose answers may leave now, in order.
    pub fn unanswered(&mut self, ticket: Ticket) -> Vec<Ticket> {
        self.order
            .as_mut()
            .map(|order| order.forget(ticket))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod paying;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
