//! The batcher's own code on a virtual clock: many seeds, each another model under another load. A failure names its seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use super::*;
use crate::Policy;

/// xorshift64*: a seed gives the same world on every machine.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In [from, to].
    fn size(&mut self, from: u64, to: u64) -> usize {
        usize::try_from(self.within(from, to)).expect("small")
    }

    pub(super) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.within(1, 100) <= percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Leave(Ticket),
    Done(usize),
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Runs,
    Answered,
    Expired,
    Left,
}

struct World {
    seed: u64,
    draw: Draw,
    batcher: Batcher,
    start: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    requests: BTreeMap<Ticket, (Request, Fate, u64)>,
    running: BTreeMap<usize, Batch>,
    /// In the order in which answers left.
    left: Vec<Ticket>,
    started: Vec<Ticket>,
    to_arrive: u64,
    refused: u64,
    arrived: u64,
    rows_high: u64,
    /// Microseconds of a batch: fixed, per row.
    cost: (u64, u64),
    /// By lane, when its batch started.
    since: BTreeMap<usize, u64>,
    burst: bool,
    /// When the timer fires.
    timer: Option<u64>,
}

fn settings(draw: &mut Draw) -> Settings {
    let rows_max: usize = [1, 4, 8, 32][draw.size(0, 3)];
    let levels = draw.within(1, 3);
    let ordered = levels == 1 && draw.chance(30);
    let policy = |draw: &mut Draw| Policy {
        timeout: draw
            .chance(40)
            .then(|| Duration::from_micros(draw.within(500, 40_000))),
        action: if !ordered && draw.chance(30) {
            OnTimeout::Delay
        } else {
            OnTimeout::Reject
        },
        may_override: draw.chance(50),
        waiting_max: draw.chance(20).then(|| draw.size(1, 30)),
    };
    let preferred = match draw.within(0, 2) {
        0 => Vec::new(),
        1 => vec![rows_max],
        _ => vec![rows_max.div_ceil(2), rows_max],
    };
    Settings {
        rows_max,
        delay: Duration::from_micros([0, 0, 100, 5_000][draw.size(0, 3)]),
        preferred,
        ordered,
        levels: (0..levels).map(|_| policy(draw)).collect(),
        level_default: 0,
        target: draw
            .chance(40)
            .then(|| Duration::from_millis(draw.within(5, 100))),
        buckets: if draw.chance(30) {
            vec![4, 8]
        } else {
            Vec::new()
        },
        waiting_max: draw.size(1, 200),
        lanes: draw.size(1, 4),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let settings = settings(&mut draw);
        let rows_high = if settings.rows_max > 1 {
            draw.within(1, 3)
        } else {
            0
        };
        let cost = (draw.within(50, 8_000), draw.within(1, 2_000));
        let burst = draw.chance(60);
        let mut world = Self {
            seed,
            draw,
            batcher: Batcher::new(settings),
            start: base_instant(),
            now: 0,
            events: BinaryHeap::new(),
            requests: BTreeMap::new(),
            running: BTreeMap::new(),
            left: Vec::new(),
            started: Vec::new(),
            to_arrive: 400,
            refused: 0,
            arrived: 0,
            rows_high,
            cost,
            since: BTreeMap::new(),
            burst,
            timer: None,
        };
        world.after(0, Event::Arrive);
        world
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.events.push(Reverse((self.now + micros, event)));
    }

    fn at(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).expect("hours at most")
    }

    fn run(mut self) {
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::Leave(ticket) => self.leave(ticket),
                Event::Done(lane) => self.done(lane),
                Event::Wake => self.timer = self.timer.filter(|timer| *timer > at),
            }
            self.settle();
        }
        self.check_end();
    }

    fn arrive(&mut self) {
        self.to_arrive -= 1;
        if self.to_arrive > 0 {
            let quiet = !self.burst || self.draw.chance(5);
            let gap = self.draw.within(0, if quiet { 6_000 } else { 200 });
            self.after(gap, Event::Arrive);
        }
        let lanes = self.batcher.settings().lanes as u64;
        let left_ms = self.draw.within(1, 400);
        let request = Request {
            rows: self.draw.size(self.rows_high.min(1), self.rows_high),
            class: self.draw.within(0, 1),
            priority: self.draw.within(0, 4),
            timeout: self
                .draw
                .chance(20)
                .then(|| Duration::from_micros(self.draw.within(0, 9_000))),
            deadline: self.at(self.now + left_ms * 1_000),
            lane: self.draw.chance(10).then(|| self.draw.size(0, lanes - 1)),
        };
        self.arrived += 1;
        let (waiting, idle) = (self.batcher.waiting(), self.batcher.idle());
        match self.batcher.arrive(self.at(self.now), request) {
            Ok(ticket) => {
                let bound = self.batcher.settings().waiting_max;
                assert!(
                    waiting < bound || (waiting == 0 && idle > 0),
                    "{}",
                    self.seed
                );
                self.requests
                    .insert(ticket, (request, Fate::Waits, self.now));
                if self.draw.chance(15) {
                    let patience = self.draw.within(0, 20_000);
                    self.after(patience, Event::Leave(ticket));
                }
            }
            Err(full) => {
                assert!(full.waiting > 0, "{}", self.seed);
                self.refused += 1;
            }
        }
    }

    fn leave(&mut self, ticket: Ticket) {
        let waits = self.requests[&ticket].1 == Fate::Waits;
        assert_eq!(self.batcher.leave(ticket), waits, "seed {}", self.seed);
        if waits {
            self.fate(ticket, Fate::Left);
            self.unanswered(ticket);
        }
    }

    fn unanswered(&mut self, ticket: Ticket) {
        let leaving = self.batcher.unanswered(ticket);
        self.left.extend(leaving);
    }

    fn fate(&mut self, ticket: Ticket, fate: Fate) {
        let (_, before, _) = self.requests.get_mut(&ticket).expect("known");
        let expected = if fate == Fate::Answered {
            Fate::Runs
        } else {
            Fate::Waits
        };
        assert_eq!(*before, expected, "seed {}: {ticket:?} {fate:?}", self.seed);
        *before = fate;
    }

    fn done(&mut self, lane: usize) {
        let batch = self.running.remove(&lane).expect("it ran");
        let took = self.now - self.since.remove(&lane).expect("it ran");
        self.batcher
            .learn(lane, batch.padded, Duration::from_micros(took));
        self.batcher.done(lane);
        for ticket in batch.tickets {
            self.fate(ticket, Fate::Answered);
            let leaving = self.batcher.answered(ticket);
            self.left.extend(leaving);
        }
    }

    /// What a driver does after each event.
    fn settle(&mut self) {
        let now = self.at(self.now);
        for Expired { ticket, why } in self.batcher.expired(now) {
            self.fate(ticket, Fate::Expired);
            let (request, _, arrived) = self.requests[&ticket];
            let due = match why {
                Why::Deadline => request.deadline,
                Why::Timeout => {
                    let settings = self.batcher.settings();
                    let policy = settings.levels[settings.level(request.priority)];
                    let allowed = policy.allowed(request.timeout).expect("a timeout");
                    self.at(arrived) + allowed
                }
            };
            assert!(now >= due, "seed {}: too early", self.seed);
            let late = now.saturating_duration_since(due);
            assert!(
                late <= Duration::from_millis(2),
                "seed {}: {late:?} late",
                self.seed
            );
            self.unanswered(ticket);
        }
        while let Some(batch) = self.batcher.next(now, &mut || true) {
            self.start(batch);
        }
        self.check_idle(now);
        if let Some(wake) = self.batcher.wake() {
            // Timers fire late, up to a millisecond.
            let late = self.draw.within(0, 1_000);
            let at = self.micros(wake).max(self.now) + late;
            if self.timer.is_none_or(|timer| at < timer) {
                self.timer = Some(at);
                self.events.push(Reverse((at, Event::Wake)));
            }
        }
    }

    fn start(&mut self, batch: Batch) {
        let seed = self.seed;
        let requests: Vec<Request> = batch
            .tickets
            .iter()
            .map(|ticket| self.requests[ticket].0)
            .collect();
        let rows: usize = requests.iter().map(|request| request.rows).sum();
        assert_eq!(rows, batch.rows, "seed {seed}");
        assert!(batch.padded >= rows, "seed {seed}");
        let settings = self.batcher.settings();
        if requests.len() > 1 {
            assert!(rows <= settings.rows_max, "seed {seed}: {rows} rows");
            let preferred = settings
                .preferred
                .last()
                .copied()
                .filter(|_| settings.target.is_none());
            assert!(
                preferred.is_none_or(|largest| rows <= largest),
                "seed {seed}: {rows} rows"
            );
        }
        for request in &requests {
            assert_eq!(request.class, requests[0].class, "seed {seed}");
            assert!(
                request.lane.is_none_or(|lane| lane == batch.lane),
                "seed {seed}"
            );
            assert!(
                request.deadline > self.at(self.now),
                "seed {seed}: nobody waits for it"
            );
        }
        let took = self.cost.0 + self.cost.1 * rows as u64;
        let took = if self.draw.chance(3) {
            took * 10
        } else {
            took + self.draw.within(0, took / 4)
        };
        self.after(took, Event::Done(batch.lane));
        for ticket in &batch.tickets {
            self.fate(*ticket, Fate::Runs);
            self.started.push(*ticket);
        }
        self.since.insert(batch.lane, self.now);
        let twice = self.running.insert(batch.lane, batch);
        assert_eq!(twice, None, "seed {seed}: a lane runs one batch at a time");
    }

    /// Nobody waits for a free lane without a reason.
    fn check_idle(&self, now: Instant) {
        let settings = self.batcher.settings();
        if self.batcher.idle() == 0 || settings.target.is_some() {
            return;
        }
        for (request, fate, arrived) in self.requests.values() {
            let overdue = self.at(*arrived) + settings.delay <= now;
            let somewhere = request.lane.is_none();
            assert!(
                *fate != Fate::Waits || !overdue || !somewhere,
                "seed {}: {request:?} waits",
                self.seed
            );
        }
    }

    fn check_end(&self) {
        let seed = self.seed;
        assert_eq!(
            self.requests.len() as u64 + self.refused,
            self.arrived,
            "seed {seed}"
        );
        assert_eq!(
            (self.batcher.waiting(), self.running.len()),
            (0, 0),
            "seed {seed}"
        );
        let settings = self.batcher.settings();
        assert_eq!(self.batcher.idle(), settings.lanes, "seed {seed}");
        for (ticket, (request, fate, _)) in &self.requests {
            let ended = matches!(fate, Fate::Answered | Fate::Expired | Fate::Left);
            assert!(ended, "seed {seed}: {ticket:?} {request:?} {fate:?}");
        }
        let answered = self
            .requests
            .values()
            .filter(|(_, fate, _)| *fate == Fate::Answered);
        assert_eq!(
            self.left.len(),
            answered.count(),
            "seed {seed}: an answer is kept or given twice"
        );
        if settings.ordered {
            assert!(self.left.is_sorted(), "seed {seed}: answers out of order");
        }
        let plain = settings.levels.len() == 1
            && settings.levels[0].action == OnTimeout::Reject
            && settings.target.is_none()
            && settings.rows_max == 1;
        if plain {
            let free = |ticket: &&Ticket| self.requests[*ticket].0.lane.is_none();
            let starts = self.started.iter().filter(free);
            assert!(starts.is_sorted(), "seed {seed}: served out of order");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary origin; it never moves"
)]
pub(super) fn base_instant() -> Instant {
    Instant::now()
}

#[test]
fn whatever_comes_each_request_ends_once_and_in_time() {
    for seed in 1..=1_500 {
        World::new(seed).run();
    }
}
