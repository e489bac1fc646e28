//! Pods that come, run and leave at a high load: how long do the large ones wait?

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use scheduler::queue::Config;
use scheduler::simulate::churn_jobs;
use scheduler::simulate::jobs::{play_between, rules};
use scheduler::trace;

use super::super::Bench;
use super::super::results::Outcome;
use super::super::samples::{Compare, Sample};
use super::{traces, unzipped};
use crate::workspace::now;

/// Of what the GPUs can do.
const LOAD: f64 = 0.95;
const DAYS: f64 = 2.0;
const DAYS_MS: u64 = 2 * 86_400_000;

/// Of the running pods, in thousandths.
const MOVES_AN_HOUR: u16 = 10;

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let folder = traces("openb")?;
    let nodes = trace::nodes(&fs::read_to_string(
        folder.join("openb_node_list_gpu_node.csv"),
    )?)?;
    let pods = trace::pods(&unzipped(&folder.join("openb_pod_list_default.csv.gz"))?)?;
    let mut samples = Vec::new();
    for round in 0..bench.options.rounds {
        let arrivals = churn_jobs(&nodes, &pods, (LOAD, DAYS), 7 + u64::from(round))?;
        for (target, config) in targets()? {
            let start = now();
            let outcome = play_between(config, nodes.clone(), &arrivals, (1, DAYS_MS))?;
            let mut figures = BTreeMap::from(outcome.figures());
            figures.insert("wall_s", start.elapsed().as_secs_f64());
            samples.push(Sample {
                case: format!("load {LOAD}"),
                target: target.to_owned(),
                round,
                figures,
            });
        }
    }
    Ok(Outcome {
        name: "scheduler-churn",
        method: format!(
            "pods of Alibaba's default list, drawn with their durations at random moments so that they ask for {LOAD} of the \
             GPUs for {DAYS} days; {} rounds, each with a seed of its own and the same arrivals for every target. Those that are \
             there at the beginning are not counted; who waits at the end has waited until then. fgd and bestfit: whoever \
             waits starts as soon as the policy finds room, the oldest is tried first; kapok: our queue and policy, which keeps \
             room for those at the head and knows how long each runs, without stopping anybody for another; kapok-moving: the \
             same, and it may move {MOVES_AN_HOUR} in 1,000 running pods an hour, of levels below 4 (`BE`, `Burstable`)",
            bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "wait_8gpu_mean_s",
            baseline: "fgd",
        }),
        reference: "goal: half of fgd's waiting of 8-GPU jobs, with at most 1 % of pods moved in an hour and none of level 4 or 5",
    })
}

fn targets() -> Result<[(&'static str, Config); 4]> {
    let rule = |name: &str, policy: &str| rules(name, policy).context("a rule's name");
    let ours = Config {
        preemption: false,
        ..rule("promises", "kapok")?
    };
    let moving = Config {
        moves_permille_hour: MOVES_AN_HOUR,
        ..ours.clone()
    };
    Ok([
        ("fgd", rule("best-effort-fifo", "fgd")?),
        ("bestfit", rule("best-effort-fifo", "bestfit")?),
        ("kapok", ours),
        ("kapok-moving", moving),
    ])
}
