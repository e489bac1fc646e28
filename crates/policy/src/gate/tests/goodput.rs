//! A line in overload, simulated: how much of what its places could do is done in time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::*;

const PLACES: usize = 8;
const MEAN_MS: f64 = 100.0;
const CALLERS: u32 = 6_000;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ word >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How long requests need a place.
#[derive(Debug, Clone, Copy)]
enum Needs {
    TheSame,
    /// Log-normal, a third more or less.
    AboutTheSame,
    Exponential,
    /// One in ten needs fifty times as long.
    Mixed,
}

/// Whether the gate hears until when its callers wait for the end of their stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    PlaceOnly,
    End,
}

#[derive(Debug, Default)]
struct Result {
    /// Of what the places could do, the part that was done in time.
    goodput: f64,
    /// Turned away before their deadline, by number.
    shed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Comes(u32),
    /// Its deadline passes while it waits.
    Late(u32),
    /// Done or cut.
    Leaves(u32),
}

struct Caller {
    needs: Duration,
    deadline: Instant,
    ticket: Option<Ticket>,
    entered: Option<Instant>,
}

struct Simulation {
    gate: Gate<u32>,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    callers: HashMap<u32, Caller>,
    good: u32,
    shed: u32,
}

impl Simulation {
    fn enters(&mut self, number: u32, now: Instant) {
        let Some(caller) = self.callers.get_mut(&number) else {
            return;
        };
        caller.ticket = None;
        caller.entered = Some(now);
        let end = (now + caller.needs).min(caller.deadline);
        self.events.push(Reverse((end, Event::Leaves(number))));
    }

    fn comes(&mut self, number: u32, now: Instant, tells: Tells) {
        if self.gate.enter() {
            return self.enters(number, now);
        }
        let left = self.callers[&number].deadline - now;
        let patience = Patience {
            place: left,
            end: (tells == Tells::End).then_some(left),
        };
        match self
            .gate
            .line_up(entry(Standard, number), 1000, patience, |_| true)
        {
            Ok(Lined::Waiting { ticket, .. }) => {
                if let Some(caller) = self.callers.get_mut(&number) {
                    caller.ticket = Some(ticket);
                    let late = (caller.deadline, Event::Late(number));
                    self.events.push(Reverse(late));
                }
            }
            Ok(Lined::In | Lined::Unneeded) => self.enters(number, now),
            Err(_) => self.shed += 1,
        }
    }

    fn leaves(&mut self, number: u32, now: Instant, tells: Tells) {
        let Some(caller) = self.callers.remove(&number) else {
            return;
        };
        let held = now - caller.entered.unwrap_or(now);
        let done = held >= caller.needs;
        self.good += u32::from(done);
        let stay = if done {
            Stay::Done(held)
        } else {
            Stay::Cut(held)
        };
        let mut turned = 0;
        let callers = &self.callers;
        let next = self.gate.leave((now, stay), |number, needed| {
            let fits = tells == Tells::PlaceOnly || now + needed <= callers[number].deadline;
            turned += u32::from(!fits);
            fits
        });
        self.shed += turned;
        if let Some(next) = next {
            self.enters(next, now);
        }
    }
}

fn simulate(needs: Needs, load: f64, deadline: f64, (tells, seed): (Tells, u64)) -> Result {
    let mut chance = Chance(seed);
    let mut simulation = Simulation {
        gate: Gate::new(PLACES),
        events: BinaryHeap::new(),
        callers: HashMap::new(),
        good: 0,
        shed: 0,
    };
    let began = start();
    let mut comes = began;
    let mut work = 0.0;
    for number in 0..CALLERS {
        let gap_ms = -(1.0 - chance.unit()).ln() * MEAN_MS / (load * PLACES as f64);
        comes += Duration::from_secs_f64(gap_ms / 1e3);
        let needs_ms = needs.draw(&mut chance);
        work += needs_ms;
        let caller = Caller {
            needs: Duration::from_secs_f64(needs_ms / 1e3),
            deadline: comes + Duration::from_secs_f64(deadline * MEAN_MS / 1e3),
            ticket: None,
            entered: None,
        };
        simulation.callers.insert(number, caller);
        simulation
            .events
            .push(Reverse((comes, Event::Comes(number))));
    }
    while let Some(Reverse((now, event))) = simulation.events.pop() {
        match event {
            Event::Comes(number) => simulation.comes(number, now, tells),
            Event::Leaves(number) => simulation.leaves(number, now, tells),
            Event::Late(number) => {
                let waiting = simulation
                    .callers
                    .get(&number)
                    .and_then(|caller| caller.ticket);
                if let Some(ticket) = waiting {
                    simulation.gate.cancel(ticket);
                }
            }
        }
    }
    let mean_s = work / f64::from(CALLERS) / 1e3;
    let could = (comes - began).as_secs_f64() * PLACES as f64 / mean_s;
    Result {
        goodput: f64::from(simulation.good) / could,
        shed: simulation.shed,
    }
}

impl Needs {
    fn draw(self, chance: &mut Chance) -> f64 {
        match self {
            Self::TheSame => MEAN_MS,
            Self::AboutTheSame => {
                // Box and Muller.
                let radius = (-2.0 * (1.0 - chance.unit()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * chance.unit()).cos();
                MEAN_MS * (0.3 * normal - 0.045).exp()
            }
            Self::Exponential => -(1.0 - chance.unit()).ln() * MEAN_MS,
            Self::Mixed if chance.unit() < 0.1 => MEAN_MS * 50.0 / 5.9,
            Self::Mixed => MEAN_MS / 5.9,
        }
    }
}

const ALL: [Needs; 4] = [
    Needs::TheSame,
    Needs::AboutTheSame,
    Needs::Exponential,
    Needs::Mixed,
];

/// Twice as many come as can be served, and wait for three times as long as one needs.
#[test]
fn in_overload_places_go_to_those_who_can_finish() {
    for needs in ALL {
        for seed in 1..=3 {
            let before = simulate(needs, 2.0, 3.0, (Tells::PlaceOnly, seed)).goodput;
            let after = simulate(needs, 2.0, 3.0, (Tells::End, seed)).goodput;
            println!("{needs:?}, seed {seed}: {before:.2} of capacity before, {after:.2} after");
            assert!(after >= 0.8, "{needs:?}, seed {seed}: {after:.2}");
            assert!(
                after >= before - 0.05,
                "{needs:?}, seed {seed}: {before:.2} before"
            );
        }
    }
    // The test can fail: without the time that a place is held most of it is wasted.
    let before = simulate(Needs::TheSame, 2.0, 3.0, (Tells::PlaceOnly, 1)).goodput;
    assert!(before < 0.6, "{before:.2}");
}

/// At half of what the places can do, with some bursts.
#[test]
fn at_light_load_nobody_is_turned_away_who_could_be_served() {
    for needs in ALL {
        for seed in 1..=3 {
            for deadline in [0.9, 3.0, 10.0] {
                let before = simulate(needs, 0.5, deadline, (Tells::PlaceOnly, seed));
                let after = simulate(needs, 0.5, deadline, (Tells::End, seed));
                println!(
                    "{needs:?}, {deadline}: {:.3} before, {:.3} after, {} and {} turned away",
                    before.goodput, after.goodput, before.shed, after.shed
                );
                let least = before.goodput - 0.005;
                assert!(after.goodput >= least, "{needs:?}, seed {seed}, {deadline}");
                // Of those with time enough nobody; others could not have been served.
                let most = before.shed + CALLERS / 1000;
                assert!(
                    deadline < 1.0 || after.shed <= most,
                    "{needs:?}, seed {seed}, {deadline}"
                );
            }
        }
    }
}
