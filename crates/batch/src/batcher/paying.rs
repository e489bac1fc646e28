//! What batches are worth, learned on a virtual clock from callers who ask again as soon as they are answered. A failure
//! names its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::simulation::{Draw, base_instant};
use super::*;

/// Milliseconds of a batch.
type Curve = fn(f64) -> f64;

/// The more rows, the more each costs, as measured of a text detector whose rows fall out of the caches.
const DEAR: Curve = |rows| 15.0 * rows * (1.0 + 0.1 * rows.log2());

/// A fixed cost that a batch pays once.
const CHEAP: Curve = |rows| 8.0 + 2.0 * rows;

/// Four rows are the cheapest, one and eight cost as much more.
const FOUR: Curve = |rows| 10.0 * rows * (1.0 + 0.2 * (rows.log2() - 2.0).abs());

/// Rows make no difference.
const EVEN: Curve = |rows| 10.0 * rows;

/// What one batch in a hundred waits for the machine, in milliseconds.
const HICCUP: f64 = 30.0;

struct Callers {
    batcher: Batcher,
    draw: Draw,
    start: Instant,
    now: Duration,
    /// Lanes that are done, by when.
    ends: BinaryHeap<Reverse<(Duration, usize)>>,
    running: Vec<Option<Batch>>,
    began: Vec<Duration>,
    answered: usize,
    /// Who have not asked yet.
    callers: usize,
    /// Rows by the size of their batch.
    rows: BTreeMap<usize, usize>,
    curve: Curve,
    /// Of one request, drawn among these.
    asks: &'static [usize],
}

impl Callers {
    fn new(seed: u64, callers: usize, settings: Settings) -> Self {
        let lanes = settings.lanes;
        Self {
            batcher: Batcher::new(settings),
            draw: Draw::new(seed),
            start: base_instant(),
            now: Duration::ZERO,
            ends: BinaryHeap::new(),
            running: vec![None; lanes],
            began: vec![Duration::ZERO; lanes],
            answered: 0,
            callers,
            rows: BTreeMap::new(),
            curve: EVEN,
            asks: &[1],
        }
    }

    fn ask(&mut self) {
        let now = self.start + self.now;
        let request = Request {
            rows: match self.asks {
                [rows] => *rows,
                several => {
                    let last = several.len() as u64 - 1;
                    several[usize::try_from(self.draw.within(0, last)).expect("an index")]
                }
            },
            class: 0,
            priority: 0,
            timeout: None,
            deadline: now + Duration::from_secs(3_600),
            lane: None,
        };
        self.batcher.arrive(now, request).expect("there is room");
        self.start();
    }

    fn start(&mut self) {
        while let Some(batch) = self.batcher.next(self.start + self.now, &mut || true) {
            *self.rows.entry(batch.rows).or_default() += batch.rows;
            let noise = 0.97 + 0.06 * self.draw.within(0, 1_000) as f64 / 1e3;
            let hiccup = if self.draw.chance(1) { HICCUP } else { 0.0 };
            let took = (self.curve)(batch.rows as f64) * noise + hiccup;
            let lane = batch.lane;
            self.began[lane] = self.now;
            self.running[lane] = Some(batch);
            let end = self.now + Duration::from_secs_f64(took / 1e3);
            self.ends.push(Reverse((end, lane)));
        }
    }

    /// Rows a second until then.
    fn until(&mut self, seconds: u64, curve: Curve) -> f64 {
        let (from, before) = (self.now, self.answered);
        self.rows.clear();
        self.curve = curve;
        for _ in 0..std::mem::take(&mut self.callers) {
            self.ask();
        }
        loop {
            let end = self.ends.pop();
            let Reverse((at, lane)) = end.expect("a lane runs while callers wait");
            self.now = at;
            let batch = self.running[lane].take().expect("it ran");
            let took = at.saturating_sub(self.began[lane]);
            self.batcher.learn(lane, batch.padded, took);
            self.batcher.done(lane);
            self.start();
            self.answered += batch.rows;
            for _ in 0..batch.tickets.len() {
                self.ask();
            }
            if self.now >= Duration::from_secs(seconds) {
                let spent = (self.now - from).as_secs_f64();
                return (self.answered - before) as f64 / spent;
            }
        }
    }

    /// Share of the rows that ran in batches of `sizes`.
    fn share(&self, sizes: std::ops::RangeInclusive<usize>) -> f64 {
        let within: usize = self.rows.range(sizes).map(|(_, rows)| rows).sum();
        within as f64 / self.rows.values().sum::<usize>() as f64
    }
}

fn batching(lanes: usize, target: Option<Duration>) -> Settings {
    Settings {
        rows_max: 32,
        target,
        ..Settings::single(lanes, 1_000)
    }
}

/// Rows a second in batches of one size, with the hiccups.
fn rate(curve: Curve, rows: f64, lanes: usize) -> f64 {
    lanes as f64 * rows / ((curve(rows) + HICCUP / 100.0) / 1e3)
}

/// Callers, lanes and targets under which what batches are worth is learned.
fn each(mut check: impl FnMut(&mut Callers, (usize, usize, &str))) {
    for seed in 1..=10 {
        for callers in [8, 16, 64] {
            for lanes in [1, 2, 4] {
                for target in [None, Some(Duration::from_secs(2))] {
                    let case = format!("seed {seed}, {callers} callers, {lanes} lanes, {target:?}");
                    let mut world = Callers::new(seed, callers, batching(lanes, target));
                    check(&mut world, (callers, lanes, &case));
                }
            }
        }
    }
}

#[test]
fn rows_that_cost_more_together_run_alone() {
    each(|world, (_, lanes, case)| {
        let alone = rate(DEAR, 1.0, lanes);
        let first = world.until(10, DEAR);
        assert!(first >= 0.75 * alone, "{case}: {first} of {alone} at first");
        let then = world.until(60, DEAR);
        assert!(then >= 0.95 * alone, "{case}: {then} of {alone}");
    });
}

/// Rows a second where batches are of all that wait, as for an owner who prefers the largest.
fn greedy(curve: Curve, (callers, lanes): (usize, usize), seconds: u64) -> f64 {
    let settings = Settings {
        preferred: vec![32],
        ..batching(lanes, None)
    };
    Callers::new(1, callers, settings).until(seconds, curve)
}

#[test]
fn rows_that_cost_less_together_run_together() {
    let mut known = BTreeMap::new();
    each(|world, (callers, lanes, case)| {
        for (seconds, share) in [(5, 0.9), (60, 0.95)] {
            let rate = world.until(seconds, CHEAP);
            let all = *known
                .entry((callers, lanes, seconds))
                .or_insert_with(|| greedy(CHEAP, (callers, lanes), seconds));
            assert!(rate >= share * all, "{case}: {rate} of {all}");
        }
    });
}

#[test]
fn requests_of_several_rows_run_together_where_that_pays() {
    for asks in [&[2][..], &[3], &[1, 3], &[1, 2, 3]] {
        for lanes in [1, 2] {
            let case = format!("{asks:?} rows, {lanes} lanes");
            let mut world = Callers::new(1, 16, batching(lanes, None));
            world.asks = asks;
            world.until(10, CHEAP);
            let rows = world.until(60, CHEAP);
            let alone = rate(CHEAP, 3.0, lanes);
            assert!(
                rows > 1.5 * alone,
                "{case}: {rows} rows/s, {:?}",
                world.rows
            );
        }
    }
}

#[test]
fn the_size_that_costs_least_is_used() {
    each(|world, (callers, lanes, case)| {
        world.until(20, FOUR);
        let then = world.until(90, FOUR);
        if callers >= 8 * lanes {
            let best = rate(FOUR, 4.0, lanes);
            assert!(then >= 0.93 * best, "{case}: {then} of {best}");
            assert!(world.share(3..=5) > 0.85, "{case}: {:?}", world.rows);
        }
    });
}

#[test]
fn where_the_size_makes_no_difference_nothing_is_lost() {
    each(|world, (_, lanes, case)| {
        let then = world.until(60, EVEN);
        let best = rate(EVEN, 1.0, lanes);
        assert!(then >= 0.97 * best, "{case}: {then} of {best}");
    });
}

#[test]
fn a_machine_that_changes_is_noticed() {
    let mut known = BTreeMap::new();
    each(|world, (callers, lanes, case)| {
        world.until(60, DEAR);
        world.until(100, CHEAP);
        let cheap = world.until(160, CHEAP);
        let all = *known
            .entry((callers, lanes))
            .or_insert_with(|| greedy(CHEAP, (callers, lanes), 60));
        assert!(cheap >= 0.9 * all, "{case}: {cheap} of {all}");
        world.until(250, DEAR);
        let (dear, alone) = (world.until(310, DEAR), rate(DEAR, 1.0, lanes));
        assert!(dear >= 0.93 * alone, "{case}: {dear} of {alone}");
    });
}
