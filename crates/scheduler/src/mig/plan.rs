//! How much each state of a device is worth to requests that are still to come.
//!
//! *Minimum fragmentation increment* (MFI, arXiv 2511.18906) counts the starts that are blocked although as many slices are
//! free. The [`Plan`] asks what a state will earn: a device that is offered each profile at its rate, and paid a price for
//! each that it takes, has an exact relative value in every state (the bias of a small Markov chain). The prices are found by
//! simulating a cluster of such devices: a profile that every other device would take as well is worth only the room that
//! it costs there. Of several plans the one that places most requests in that simulation is taken, or MFI itself.

use super::automaton::slices;
use super::{Automaton, Family};
use crate::rng::Rng;

/// Which profiles come, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// By the family's shapes; sums to 1.
    pub shares: Vec<f64>,
    /// Slices asked for at a time, as a share of all there are, if none were turned away. Plans are made for the first;
    /// none of the others may suffer.
    pub loads: Vec<f64>,
}

/// Worth by state of the automaton; only differences mean anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<i32>);

/// Devices of the simulated cluster, and lifetimes that it runs for, of which the first is not counted.
const DEVICES: usize = 64;
const LIFETIMES: f64 = 5.0;
const WARM: f64 = 1.5;

/// Sweeps over all states for one relative value; a residual then moves no choice.
const SWEEPS: usize = 200;

/// Rounds of prices. They settle in about four, and circle there: each round is a candidate.
const ROUNDS: u64 = 6;

/// Seeds that candidates are chosen by, and others that the best of them are held against.
const SCREENING: std::ops::Range<u64> = 50..53;
const PROOF: std::ops::Range<u64> = 60..68;
const FINALISTS: usize = 8;
const MIXED: usize = 3;

/// Of the one plan in a mixture of two.
const PARTS: [f64; 3] = [0.25, 0.5, 0.75];

/// Beside MFI at a load that is not the one meant: within the noise of the simulation.
const LEAST: f64 = 0.995;

/// What a request is worth as its size grows: one each, something between, the slices it takes. And how often a device can
/// have its pick, beside the rate that would be its own.
const VALUES: [fn(f64) -> f64; 3] = [|_| 1.0, f64::sqrt, |size| size];
const PICKS: [f64; 3] = [1.0, 2.0, 5.0];

impl Plan {
    pub fn mfi(automaton: &Automaton) -> Self {
        let worth = |state| -blocked(automaton.family(), automaton.occupied(state).memory);
        Self((0..automaton.states()).map(worth).collect())
    }

    pub fn new(automaton: &'static Automaton, demand: &Demand) -> Self {
        let shares: f64 = demand.shares.iter().sum();
        if demand.loads.is_empty() || shares.is_nan() || shares <= 0.0 {
            return Self::mfi(automaton);
        }
        let world = World::new(automaton, &demand.shares);
        let mfi = world.project(&Self::mfi(automaton));
        let load = demand.loads[0];
        let mut tried = Vec::new();
        for (value, picks) in VALUES
            .iter()
            .flat_map(|value| PICKS.map(|picks| (value, picks)))
        {
            tried.extend(world.candidates(load, *value, picks));
        }
        let mut best = world.best(tried, load);
        let mut mixed = best.clone();
        mixed.truncate(MIXED);
        mixed.push(mfi.clone());
        best.extend(mixtures(&mixed));
        let best = world.best(best, load);
        world.complete(&world.proved(best, mfi, &demand.loads))
    }

    /// By state of the automaton.
    pub fn worth(&self, state: u16) -> i32 {
        self.0
            .get(usize::from(state))
            .copied()
            .unwrap_or(i32::MIN / 2)
    }
}

/// MFI's measure: for each profile that has fewer slices than are free, its size for each start that is blocked.
fn blocked(family: &Family, memory: u8) -> i32 {
    let free = u32::from(family.memory) - memory.count_ones();
    let shapes = family.shapes.iter().filter(|shape| !shape.media);
    let possible = shapes.filter(|shape| u32::from(shape.memory) <= free);
    possible
        .map(|shape| {
            let starts = shape.starts.iter();
            let blocked = starts.filter(|start| slices(shape, **start) & memory != 0);
            i32::from(shape.memory) * i32::try_from(blocked.count()).unwrap_or(0)
        })
        .sum()
}

/// Between each two of them, on the same scale.
fn mixtures(plans: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let spread = |plan: &Vec<f64>| {
        let least = plan.iter().copied().fold(f64::MAX, f64::min);
        let most = plan.iter().copied().fold(f64::MIN, f64::max);
        (most - least).max(f64::MIN_POSITIVE)
    };
    let mut mixed = Vec::new();
    for (at, one) in plans.iter().enumerate() {
        for other in plans.iter().skip(at + 1) {
            for part in PARTS {
                let (own, its) = (part / spread(one), (1.0 - part) / spread(other));
                let pairs = one.iter().zip(other);
                mixed.push(pairs.map(|(one, other)| one * own + other * its).collect());
            }
        }
    }
    mixed
}

/// The automaton without media extensions, which two instances compete for so rarely that a plan need not know them.
struct World {
    automaton: &'static Automaton,
    /// Of the automaton, and the other way round: what a state is without media extensions.
    states: Vec<u16>,
    plain: Vec<u16>,
    shapes: Vec<Kind>,
    /// By state and kind: states with one such instance more.
    after: Vec<Vec<Vec<(u8, u16)>>>,
    /// By state: kind, start and state with that instance less.
    before: Vec<Vec<(usize, u8, u16)>>,
}

struct Kind {
    shape: u8,
    size: f64,
    share: f64,
}

#[derive(Debug, Default)]
struct Run {
    arrived: Vec<f64>,
    placed: Vec<f64>,
    cost: Vec<f64>,
}

impl Run {
    fn accepted(&self) -> f64 {
        self.placed.iter().sum::<f64>() / self.arrived.iter().sum::<f64>().max(1.0)
    }
}

impl World {
    /// Share of the requests that find room.
    fn accepted(&self, worth: &[f64], load: f64, seeds: std::ops::Range<u64>) -> f64 {
        let count = seeds.end - seeds.start;
        let runs = seeds.map(|seed| self.run(worth, load, seed).accepted());
        runs.sum::<f64>() / count.max(1) as f64
    }

    /// The few that place most.
    fn best(&self, tried: Vec<Vec<f64>>, load: f64) -> Vec<Vec<f64>> {
        let judged = tried.into_iter().map(|worth| {
            let accepted = self.accepted(&worth, load, SCREENING);
            (accepted, worth)
        });
        let mut judged: Vec<_> = judged.collect();
        judged.sort_by(|left, right| right.0.total_cmp(&left.0));
        judged.truncate(FINALISTS);
        judged.into_iter().map(|(_, worth)| worth).collect()
    }

    /// The best on other arrivals than those that it was chosen by; MFI where that is better, or it is worse at another load.
    fn proved(&self, plans: Vec<Vec<f64>>, mfi: Vec<f64>, loads: &[f64]) -> Vec<f64> {
        let judge = |worth: &[f64]| -> Vec<f64> {
            let accepted = loads.iter().map(|load| self.accepted(worth, *load, PROOF));
            accepted.map(|share| share.max(f64::MIN_POSITIVE)).collect()
        };
        let reference = judge(&mfi);
        let mut best = (reference[0], mfi);
        for worth in plans {
            let own = judge(&worth);
            let others = own.iter().zip(&reference).skip(1);
            let safe = others
                .map(|(own, mfi)| own / mfi)
                .all(|ratio| ratio >= LEAST);
            if safe && own[0] > best.0 {
                best = (own[0], worth);
            }
        }
        best.1
    }

    fn new(automaton: &'static Automaton, shares: &[f64]) -> Self {
        let family = automaton.family();
        let total: f64 = shares.iter().sum();
        let mut shapes: Vec<Kind> = Vec::new();
        for ((shape, kind), share) in (0_u8..).zip(family.shapes).zip(shares) {
            // One with the extensions follows the same without.
            match shapes.last_mut() {
                Some(last) if kind.media => last.share += share / total,
                _ => shapes.push(Kind {
                    shape,
                    size: f64::from(kind.memory),
                    share: share / total,
                }),
            }
        }
        let own = |state: &u16| {
            let mut instances = automaton.instances(*state);
            instances.all(|(shape, _)| !family.shapes[usize::from(shape)].media)
        };
        let states: Vec<u16> = (0..automaton.states()).filter(own).collect();
        let number = |state: u16| {
            states
                .binary_search(&state)
                .ok()
                .and_then(|at| u16::try_from(at).ok())
        };
        let plain = (0..automaton.states()).map(|state| {
            let instances = automaton.instances(state).map(|(shape, start)| {
                let media = family.shapes[usize::from(shape)].media;
                (shape - u8::from(media), start)
            });
            let mut plain = Some(0);
            for (shape, start) in instances {
                plain = plain.and_then(|plain| automaton.with(plain, shape, start));
            }
            plain.and_then(number).unwrap_or(0)
        });
        let plain: Vec<u16> = plain.collect();
        let after = states.iter().map(|state| {
            let row = shapes.iter().map(|kind| {
                let starts = automaton.starts(*state, kind.shape);
                starts
                    .map(|(start, next)| (start, plain[usize::from(next)]))
                    .collect()
            });
            row.collect()
        });
        let before = states.iter().map(|state| {
            let instances = automaton.instances(*state);
            let row = instances.filter_map(|(shape, start)| {
                let kind = shapes.iter().position(|kind| kind.shape == shape)?;
                let less = automaton.without(*state, shape, start)?;
                Some((kind, start, plain[usize::from(less)]))
            });
            row.collect()
        });
        Self {
            after: after.collect(),
            before: before.collect(),
            automaton,
            plain,
            shapes,
            states,
        }
    }

    fn project(&self, plan: &Plan) -> Vec<f64> {
        self.states
            .iter()
            .map(|state| f64::from(plan.worth(*state)))
            .collect()
    }

    /// In steps of a thousandth of the spread: all states of a device are told apart, and scores stay small.
    fn complete(&self, worth: &[f64]) -> Plan {
        let least = worth.iter().copied().fold(f64::MAX, f64::min);
        let most = worth.iter().copied().fold(f64::MIN, f64::max);
        let scale = 1e6 / (most - least).max(f64::MIN_POSITIVE);
        let states = 0..self.automaton.states();
        Plan(
            states
                .map(|state| {
                    rounded((worth[usize::from(self.plain[usize::from(state)])] - most) * scale)
                })
                .collect(),
        )
    }

    /// Arrivals of all kinds in one lifetime, at one device.
    fn rate(&self, load: f64) -> f64 {
        let mean: f64 = self.shapes.iter().map(|kind| kind.share * kind.size).sum();
        load * f64::from(self.automaton.family().memory) / mean
    }

    fn candidates(&self, load: f64, value: fn(f64) -> f64, picks: f64) -> Vec<Vec<f64>> {
        let rates: Vec<f64> = self
            .shapes
            .iter()
            .map(|kind| picks * self.rate(load) * kind.share)
            .collect();
        let values: Vec<f64> = self.shapes.iter().map(|kind| value(kind.size)).collect();
        let mut prices = values.clone();
        let mut candidates = Vec::new();
        for round in 0..ROUNDS {
            let worth = self.relative(&rates, &prices);
            let run = self.run(&worth, load, round);
            for (kind, price) in prices.iter_mut().enumerate() {
                let share = run.placed[kind] / run.arrived[kind].max(1.0);
                let cost = if run.placed[kind] > 0.0 {
                    (run.cost[kind] / run.placed[kind]).max(0.0)
                } else {
                    values[kind]
                };
                // Another device would have taken it, at that cost to what it can take later; or none would.
                let next = (1.0 - share) * values[kind] + share * cost;
                *price = (*price + next) / 2.0;
            }
            candidates.push(worth);
        }
        candidates
    }

    /// Relative value of each state by value iteration; a device may refuse.
    fn relative(&self, rates: &[f64], prices: &[f64]) -> Vec<f64> {
        let mut worth = vec![0.0_f64; self.states.len()];
        let all: f64 = rates.iter().sum::<f64>() + f64::from(self.automaton.family().compute);
        for _ in 0..SWEEPS {
            let mut next = vec![0.0; worth.len()];
            for (state, value) in next.iter_mut().enumerate() {
                let own = worth[state];
                let mut sum = 0.0;
                let mut rest = all;
                for ((after, rate), price) in self.after[state].iter().zip(rates).zip(prices) {
                    let taken = after
                        .iter()
                        .map(|(_, next)| price + worth[usize::from(*next)]);
                    sum += rate * taken.fold(own, f64::max);
                    rest -= rate;
                }
                for (_, _, less) in &self.before[state] {
                    sum += worth[usize::from(*less)];
                    rest -= 1.0;
                }
                *value = (sum + rest * own) / all;
            }
            let empty = next[0];
            for value in &mut next {
                *value -= empty;
            }
            worth = next;
        }
        worth
    }

    /// Requests come to [`DEVICES`] at random moments, stay for a lifetime, and are turned away where nothing is free.
    fn run(&self, worth: &[f64], load: f64, seed: u64) -> Run {
        let mut rng = Rng::new(seed);
        let mut devices = [0_u16; DEVICES];
        let mut ends: std::collections::BinaryHeap<std::cmp::Reverse<(u64, usize, usize, u8)>> =
            Default::default();
        let kinds = self.shapes.len();
        let mut run = Run {
            arrived: vec![0.0; kinds],
            placed: vec![0.0; kinds],
            cost: vec![0.0; kinds],
        };
        let between = 1.0 / (self.rate(load) * DEVICES as f64);
        let mut now = 0.0;
        while now < LIFETIMES {
            now += rng.exponential(between);
            let kind = self.draw(&mut rng);
            // Positive floats are in the order of their bits.
            let end = (now + rng.exponential(1.0)).to_bits();
            while let Some(std::cmp::Reverse((at, device, kind, start))) = ends.peek().copied()
                && at <= now.to_bits()
            {
                ends.pop();
                let state = usize::from(devices[device]);
                let mut before = self.before[state].iter();
                let less = before.find(|(known, at, _)| (*known, *at) == (kind, start));
                devices[device] = less.map_or(0, |(_, _, less)| *less);
            }
            let counts = now > WARM;
            run.arrived[kind] += f64::from(u8::from(counts));
            let mut best: Option<(f64, usize, u8, u16)> = None;
            for (device, state) in devices.iter().enumerate() {
                for (start, next) in &self.after[usize::from(*state)][kind] {
                    let gain = worth[usize::from(*next)] - worth[usize::from(*state)];
                    if best.is_none_or(|best| gain > best.0) {
                        best = Some((gain, device, *start, *next));
                    }
                }
            }
            if let Some((gain, device, start, next)) = best {
                devices[device] = next;
                ends.push(std::cmp::Reverse((end, device, kind, start)));
                if counts {
                    run.placed[kind] += 1.0;
                    run.cost[kind] -= gain;
                }
            }
        }
        run
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let mut point = rng.unit();
        let last = self.shapes.len() - 1;
        for (at, kind) in self.shapes.iter().enumerate() {
            point -= kind.share;
            if point <= 0.0 {
                return at;
            }
        }
        last
    }
}

#[expect(clippy::cast_possible_truncation, reason = "within a million")]
fn rounded(value: f64) -> i32 {
    value.round() as i32
}
