//! The batcher's own code on a virtual clock: what a latency target carries, beside the best of a sweep of fixed delays.

mod clairvoyant;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use batch::{Batcher, Policy, Request, Settings, Ticket};

use super::Bench;
use super::results::Outcome;
use super::samples::{Compare, Sample};

/// Stated, not measured: the shape of a small transformer on one core.
const FIXED_US: f64 = 2_000.0;
const ROW_US: f64 = 600.0;

const ROWS_MAX: usize = 32;
const LANES: usize = 1;

/// Requests per second of full batches without a pause.
const CAPACITY: f64 = ROWS_MAX as f64 / (FIXED_US + ROW_US * ROWS_MAX as f64) * 1e6;

/// Bursts of ten times the quiet rate, a tenth of the time.
const BURST: f64 = 10.0;
const QUIET_MS: f64 = 900.0;
const BURST_MS: f64 = 100.0;

/// `max_queue_delay_microseconds` tried.
const DELAYS_US: [u64; 9] = [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000];

/// Mean loads, as shares of what full batches carry.
const LOADS: [f64; 4] = [0.1, 0.2, 0.3, 0.4];

/// What a request in the background says it can wait, beside callers who say nothing.
const BACKGROUND: Duration = Duration::from_secs(2);

/// Shares of the requests that are in the background.
const MIXES: [f64; 2] = [0.0, 0.5];

const FIXED: &str = "best fixed delay";
const PRIORITIES: &str = "that delay with two priorities";
const TARGET: &str = "latency target";
const CLAIRVOYANT: &str = "the best there is, all arrivals known";

pub(super) fn run(bench: &Bench<'_>) -> Outcome {
    let mut samples = Vec::new();
    // Arrivals of so many virtual seconds; bursts come once a second.
    let seconds = f64::from(bench.options.seconds) * 20.0;
    for round in 0..bench.options.rounds {
        let seed = u64::from(round) + 1;
        for (load, background) in LOADS
            .into_iter()
            .flat_map(|load| MIXES.map(|mix| (load, mix)))
        {
            let case = format!(
                "{:.0} % of the capacity of full batches, {:.0} % in the background",
                load * 100.0,
                background * 100.0
            );
            let world = Given {
                seed,
                seconds,
                background,
            };
            samples.extend(compare((case, round), load * CAPACITY, world));
        }
    }
    Outcome {
        name: "batcher",
        method: format!(
            "virtual clock; a batch of n takes {FIXED_US:.0} + {ROW_US:.0} n µs ± 5 % (stated, not measured), up to {ROWS_MAX} rows, \
             {LANES} lane; Poisson arrivals, {BURST_MS:.0} ms bursts of {BURST:.0} times the rate between {QUIET_MS:.0} ms of quiet, {seconds:.0} s; \
             for each load the fixed delay of {DELAYS_US:?} µs with the lowest p99, then the largest load at which a target \
             keeps that p99, none refused; p99 is over all requests, but where a share is in the background (each names a \
             timeout of {} s, the others none) over the others, while 99 % of the background stay within theirs; two \
             priorities: the same fixed delay with the background on the second level, as Triton would be set up for it; the best \
             there is: the largest load of which a schedule that knows all arrivals, found by dynamic programming, answers 99 % \
             within that p99",
            BACKGROUND.as_secs()
        ),
        samples,
        compare: Some(Compare {
            figure: "requests_s",
            baseline: FIXED,
        }),
        reference: "goal: at least 1.3 times the throughput of the best fixed delay at its p99; where all requests are equally \
                    urgent no batcher can, as the schedule that knows all arrivals shows",
    }
}

fn compare((case, round): (String, u32), rate: f64, world: Given) -> Vec<Sample> {
    let fixed = DELAYS_US.map(|delay| (delay, simulate(&settings(delay, None), rate, world)));
    let best = fixed
        .into_iter()
        .min_by(|left, right| left.1.p99.total_cmp(&right.1.p99));
    let (delay, best) = best.unwrap_or_default();
    let sample = |target: &str, figures: BTreeMap<&'static str, f64>| Sample {
        case: case.clone(),
        target: target.to_owned(),
        round,
        figures,
    };
    let figures = |(rate, figures): (f64, Figures)| {
        BTreeMap::from([
            ("requests_s", rate),
            ("p99_ms", figures.p99 * 1e3),
            ("background_p99_ms", figures.background_p99 * 1e3),
            ("worst_ms", figures.worst * 1e3),
            ("rows", figures.rows),
        ])
    };
    let mut own = figures((rate, best));
    own.insert("delay_ms", delay as f64 / 1e3);
    let mut samples = vec![sample(FIXED, own)];
    let reached = |settings: &Settings| figures(largest(settings, (rate, best.p99), world));
    if world.background > 0.0 {
        let levels = vec![Policy::default(); 2];
        let two = Settings {
            levels,
            ..settings(delay, None)
        };
        samples.push(sample(PRIORITIES, reached(&two)));
    }
    let target = Duration::try_from_secs_f64(best.p99).unwrap_or_default();
    samples.push(sample(TARGET, reached(&settings(0, Some(target)))));
    if world.background == 0.0 {
        let rate = ceiling((rate, best.p99), world);
        let figures = BTreeMap::from([("requests_s", rate), ("p99_ms", best.p99 * 1e3)]);
        samples.push(sample(CLAIRVOYANT, figures));
    }
    samples
}

/// The largest load of which 99 of 100 requests can be answered within the bound, to a hundredth.
fn ceiling((rate, p99): (f64, f64), world: Given) -> f64 {
    let lane = clairvoyant::Lane {
        fixed: FIXED_US / 1e6,
        row: ROW_US / 1e6,
        rows_max: ROWS_MAX,
    };
    rate * highest(|factor| {
        let arrivals = arrivals(rate * factor, world.seconds, &mut world.draw());
        let arrivals: Vec<f64> = arrivals.iter().map(Duration::as_secs_f64).collect();
        let late_max = arrivals.len() - arrivals.len() * 99 / 100;
        (clairvoyant::late(&arrivals, p99, lane) < late_max.max(1)).then_some(())
    })
    .map_or(0.0, |(factor, ())| factor)
}

/// The highest factor of the load that still goes, to a hundredth, and what was found there.
fn highest<T>(goes: impl Fn(f64) -> Option<T>) -> Option<(f64, T)> {
    let mut found = None;
    let (mut low, mut high) = (0.5, 3.0);
    while high - low > 0.01 {
        let factor = f64::midpoint(low, high);
        match goes(factor) {
            Some(what) => {
                found = Some((factor, what));
                low = factor;
            }
            None => high = factor,
        }
    }
    found
}

/// The largest load whose p99 stays within the bound, to a hundredth, and what it looks like there.
fn largest(settings: &Settings, (rate, p99): (f64, f64), world: Given) -> (f64, Figures) {
    let found = highest(|factor| {
        let figures = simulate(settings, rate * factor, world);
        let goes = figures.p99 <= p99 && figures.background_p99 <= BACKGROUND.as_secs_f64();
        goes.then_some(figures)
    });
    found.map_or_else(Default::default, |(factor, figures)| {
        (rate * factor, figures)
    })
}

fn settings(delay_us: u64, target: Option<Duration>) -> Settings {
    Settings {
        rows_max: ROWS_MAX,
        delay: Duration::from_micros(delay_us),
        target,
        ..Settings::single(LANES, 1 << 20)
    }
}

/// The same for all sides of a comparison.
#[derive(Debug, Clone, Copy)]
struct Given {
    seed: u64,
    seconds: f64,
    /// Share of the requests.
    background: f64,
}

impl Given {
    fn draw(self) -> Draw {
        Draw(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
}

/// Seconds, and rows of the mean batch.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    p99: f64,
    background_p99: f64,
    worst: f64,
    rows: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(Urgency),
    Done(usize),
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Interactive,
    Background,
}

struct World {
    batcher: Batcher,
    draw: Draw,
    origin: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    arrived: BTreeMap<Ticket, (Duration, Urgency)>,
    running: BTreeMap<usize, Vec<Ticket>>,
    waits: Vec<f64>,
    background: Vec<f64>,
    batches: u32,
}

fn simulate(settings: &Settings, rate: f64, given: Given) -> Figures {
    let mut world = World {
        batcher: Batcher::new(settings.clone()),
        draw: given.draw(),
        origin: crate::workspace::now(),
        now: Duration::ZERO,
        events: BinaryHeap::new(),
        arrived: BTreeMap::new(),
        running: BTreeMap::new(),
        waits: Vec::new(),
        background: Vec::new(),
        batches: 0,
    };
    // Drawn first: both sides of a comparison meet the same arrivals.
    for at in arrivals(rate, given.seconds, &mut world.draw) {
        let urgency = if given.background > 0.0 && world.draw.unit() <= given.background {
            Urgency::Background
        } else {
            Urgency::Interactive
        };
        world.events.push(Reverse((at, Event::Arrive(urgency))));
    }
    while let Some(Reverse((at, event))) = world.events.pop() {
        world.now = at;
        world.step(event);
    }
    world.figures()
}

/// Moments of a Poisson process whose rate changes between quiet and burst.
fn arrivals(rate: f64, seconds: f64, draw: &mut Draw) -> Vec<Duration> {
    let mean = (QUIET_MS + BURST * BURST_MS) / (QUIET_MS + BURST_MS);
    let quiet = rate / mean;
    // Apart: at every rate the bursts are the same.
    let mut phases = Draw(draw.0.rotate_left(32) | 1);
    let mut moments = Vec::new();
    let (mut at, mut bursting) = (0.0, false);
    while at < seconds {
        let length = phases.exponential(if bursting { BURST_MS } else { QUIET_MS } / 1e3);
        let rate = if bursting { quiet * BURST } else { quiet };
        let mut next = at + draw.exponential(1.0 / rate);
        while next < at + length {
            moments.extend(Duration::try_from_secs_f64(next));
            next += draw.exponential(1.0 / rate);
        }
        at += length;
        bursting = !bursting;
    }
    moments
}

impl World {
    fn step(&mut self, event: Event) {
        let now = self.origin + self.now;
        match event {
            Event::Arrive(urgency) => {
                let background = urgency == Urgency::Background;
                let request = Request {
                    rows: 1,
                    class: 0,
                    // Where there is one level only, both are on it.
                    priority: if background { 2 } else { 1 },
                    timeout: background.then_some(BACKGROUND),
                    deadline: now + Duration::from_secs(3_600),
                    lane: None,
                };
                if let Ok(ticket) = self.batcher.arrive(now, request) {
                    self.arrived.insert(ticket, (self.now, urgency));
                }
            }
            Event::Done(lane) => {
                self.batcher.done(lane);
                for ticket in self.running.remove(&lane).unwrap_or_default() {
                    if let Some((arrived, urgency)) = self.arrived.remove(&ticket) {
                        let waits = match urgency {
                            Urgency::Interactive => &mut self.waits,
                            Urgency::Background => &mut self.background,
                        };
                        waits.push((self.now - arrived).as_secs_f64());
                    }
                }
            }
            Event::Wake => {}
        }
        while let Some(batch) = self.batcher.next(now, &mut || true) {
            let noise = 0.95 + 0.1 * self.draw.unit();
            let took = (FIXED_US + ROW_US * batch.rows as f64) * noise;
            let took = Duration::try_from_secs_f64(took / 1e6).unwrap_or_default();
            self.batcher.learn(batch.lane, batch.rows, took);
            self.events
                .push(Reverse((self.now + took, Event::Done(batch.lane))));
            self.running.insert(batch.lane, batch.tickets);
            self.batches += 1;
        }
        let far = now + Duration::from_secs(1_800);
        if let Some(wake) = self
            .batcher
            .wake()
            .filter(|wake| *wake > now && *wake < far)
        {
            let at = wake.saturating_duration_since(self.origin);
            self.events.push(Reverse((at, Event::Wake)));
        }
    }

    fn figures(mut self) -> Figures {
        let rows = (self.waits.len() + self.background.len()) as f64;
        let sorted = |waits: &mut Vec<f64>| {
            waits.sort_by(f64::total_cmp);
            waits.get(waits.len() * 99 / 100).copied()
        };
        Figures {
            p99: sorted(&mut self.waits).unwrap_or(f64::INFINITY),
            background_p99: sorted(&mut self.background).unwrap_or_default(),
            worst: self.waits.last().copied().unwrap_or_default(),
            rows: rows / f64::from(self.batches.max(1)),
        }
    }
}

/// xorshift64*: a seed gives the same world on every machine.
struct Draw(u64);

impl Draw {
    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        (bits as f64 + 1.0) / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }
}
