//! Time of one decision, for each policy and size of pool. Prints a JSON object a line; `cargo xtask bench routing`
//! reads it.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measures, and tells the bench what it found"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use routing::{
    Affinity, Ask, Cheapest, Digest, Draw, Fastest, Index, LeastLoaded, Load, Members, Meter,
    Notes, Policy, PowerOfTwo, Prefix, Report, RoundRobin, session_of,
};

/// Decisions in one measurement, of which the mean is taken; so many measurements, of which the 50th and the 99th
/// hundredth are told: a clock read for each decision would be a good part of it.
const DECISIONS: u64 = 100;
const MEASUREMENTS: usize = 500;

/// Different prompts and sessions.
const PROMPTS: u64 = 2_000;

/// Meters as the gateway holds them: one allocation each, so that a look at one is a walk through memory.
struct Pool(Vec<Arc<Meter>>);

impl Pool {
    fn new(count: usize) -> Self {
        let mut draw = Draw::new(1);
        let meters = (0..count).map(|_| {
            let meter = Arc::new(Meter::default());
            for _ in 0..draw.below(20) {
                meter.enter();
            }
            meter.answered(20_000.0 + draw.below(50_000) as f32, 1);
            let report = Report {
                queued: u32::try_from(draw.below(5)).ok(),
                running: u32::try_from(draw.below(30)).ok(),
                ..Report::default()
            };
            meter.report(&report, 1);
            meter
        });
        Self(meters.collect())
    }
}

impl Members for Pool {
    fn count(&self) -> usize {
        self.0.len()
    }

    /// One in sixteen cannot be used.
    fn usable(&self, member: usize) -> bool {
        !member.is_multiple_of(16)
    }

    fn load(&self, member: usize) -> Load {
        self.0[member].read(500)
    }
}

fn policies(members: usize) -> Vec<(&'static str, Box<dyn Policy>)> {
    let names: Vec<String> = (0..members).map(|member| format!("gpu-{member}")).collect();
    let numbers = (0..).take(members);
    let costs: Vec<u32> = numbers.clone().map(|member: u32| member % 5).collect();
    let index = Arc::new(Index::new(64 << 20));
    let ids = numbers.collect();
    let affinity = Affinity::new(names.iter().map(String::as_str), 125);
    vec![
        ("roundRobin", Box::new(RoundRobin)),
        ("p2c", Box::new(PowerOfTwo)),
        ("leastLoaded", Box::new(LeastLoaded)),
        ("fastest", Box::new(Fastest)),
        ("cheapest", Box::new(Cheapest::new(&costs, 2_000))),
        ("affinity", Box::new(affinity)),
        ("prefix", Box::new(Prefix::new(index, ids))),
    ]
}

fn main() {
    // Conversations of 2,000 to 30,000 tokens, as the engines' blocks of 64.
    let digests: Vec<Digest> = (0..PROMPTS)
        .map(|prompt| Digest::of_blocks(prompt / 4, 0..30 + prompt % 450))
        .collect();
    for members in [10, 10_000] {
        let pool = Pool::new(members);
        for (name, policy) in policies(members) {
            let mut times: Vec<f64> = (0..MEASUREMENTS as u64)
                .map(|measurement| measured(&*policy, &pool, &digests, measurement))
                .collect();
            times.sort_by(f64::total_cmp);
            let at = |hundredth: usize| times[times.len() * hundredth / 100];
            let (p50, p99) = (at(50), at(99));
            println!(
                "{{\"policy\":\"{name}\",\"members\":{members},\"p50_ns\":{p50:.0},\"p99_ns\":{p99:.0}}}"
            );
        }
    }
}

/// Nanoseconds of a decision.
fn measured(policy: &dyn Policy, pool: &Pool, digests: &[Digest], measurement: u64) -> f64 {
    let started = Instant::now();
    for decision in 0..DECISIONS {
        let turn = measurement * DECISIONS + decision;
        let ask = Ask {
            turn,
            session: Some(session_of(&(turn % PROMPTS).to_le_bytes())),
            prompt: usize::try_from(turn * 7 % PROMPTS)
                .ok()
                .and_then(|prompt| digests.get(prompt)),
            now_ms: 500,
        };
        let mut notes = Notes::default();
        black_box(policy.choose(pool, &ask, &mut notes));
        black_box(notes);
    }
    started.elapsed().as_nanos() as f64 / DECISIONS as f64
}
