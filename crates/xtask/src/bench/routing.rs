//! How long a decision takes, and how near prefix routing comes to an oracle on recorded prompts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use routing::replay::{self, Prompt, Router, read_mooncake, replay};
use routing::{Index, Prefix, RoundRobin};
use serde::Deserialize;

use super::Bench;
use super::results::Outcome;
use super::samples::Sample;
use crate::process::{cargo, output};
use crate::workspace::root;

/// Servers, and blocks of 512 tokens that the cache of each has room for.
const FARMS: [(usize, usize); 6] = [
    (4, 2_000),
    (8, 1_000),
    (8, 4_000),
    (10, 5_000),
    (16, 2_000),
    (16, 100_000),
];

const INDEX_BYTES: usize = 4 << 20;

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let prompts = trace()?;
    let mut samples = Vec::new();
    for (servers, cache_blocks) in FARMS {
        samples.extend(replayed(&prompts, servers, cache_blocks));
    }
    for round in 0..bench.options.rounds {
        samples.extend(decisions(bench, round)?);
    }
    Ok(Outcome {
        name: "routing",
        method: format!(
            "decisions: a hundred at a time on one thread, 500 times; one member in sixteen is down, prompts of 30 to 480 \
             blocks; replay: {} requests of the trace `mooncake` (synthetic), each server an LRU cache of blocks of 512 \
             tokens, the index at most {INDEX_BYTES} bytes; the oracle looks into all caches",
            prompts.len()
        ),
        samples,
        compare: None,
        reference: "goals: 5 µs at 10 upstreams, 20 µs at 10,000; 95 % of the oracle's hit rate, busiest over mean 1.25",
    })
}

fn trace() -> Result<Vec<Prompt>> {
    let path = root().join("../shared/data/traces/mooncake/synthetic_trace.jsonl.gz");
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text)?;
    Ok(read_mooncake(&text)?)
}

fn replayed(prompts: &[Prompt], servers: usize, cache_blocks: usize) -> [Sample; 3] {
    let ids = (0..).take(servers).collect();
    let prefix = Prefix::new(Arc::new(Index::new(INDEX_BYTES)), ids);
    let routers = [
        ("prefix", Router::Policy(&prefix)),
        ("oracle", Router::Oracle),
        ("roundRobin", Router::Policy(&RoundRobin)),
    ];
    routers.map(|(target, router)| {
        let replay::Outcome {
            hit_rate,
            requests_peak,
            computed_peak,
        } = replay(prompts, servers, cache_blocks, &router);
        Sample {
            case: format!("{servers} servers, caches of {cache_blocks} blocks"),
            target: target.to_owned(),
            round: 0,
            figures: BTreeMap::from([
                ("hit_rate", hit_rate),
                ("requests_peak", requests_peak),
                ("computed_peak", computed_peak),
            ]),
        }
    })
}

#[derive(Deserialize)]
struct Decision {
    policy: String,
    members: usize,
    p50_ns: f64,
    p99_ns: f64,
}

fn decisions(bench: &Bench<'_>, round: u32) -> Result<Vec<Sample>> {
    let profile = bench.options.profile.name();
    let args = [
        "bench",
        "-q",
        "-p",
        "routing",
        "--bench",
        "decide",
        "--profile",
        profile,
    ];
    let printed = output(cargo().args(args))?;
    let read = |line: &str| {
        let decision: Decision = serde_json::from_str(line).context("in what the bench printed")?;
        Ok(Sample {
            case: format!("one decision among {}", decision.members),
            target: decision.policy,
            round,
            figures: BTreeMap::from([
                ("p50_us", decision.p50_ns / 1e3),
                ("p99_us", decision.p99_ns / 1e3),
            ]),
        })
    };
    printed
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(read)
        .collect()
}
