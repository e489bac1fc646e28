//! Jobs of public traces through the real queue: how fair and how long they wait on Philly, deadlines kept on Chronus.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use scheduler::queue::{Amounts, Config, Reclaim, Tenant};
use scheduler::simulate::jobs::{Arrival, play, rules};
use scheduler::{Node, trace};

use super::super::results::Outcome;
use super::super::samples::Sample;
use super::traces;
use crate::workspace::now;

/// Machines of eight GPUs: the months in which most jobs came ask for nine tenths of them.
const PHILLY: u32 = 78;
/// The same of Chronus' trace.
const CHRONUS: u32 = 152;

const POLICY: &str = "gpupacking";

/// Names of targets, and the rules that they are.
const FAIRNESS: [(&str, &str); 8] = [
    ("fifo", "fifo"),
    ("easy", "easy"),
    ("kueue-strict-fifo", "quota-strict"),
    ("kueue-best-effort-fifo", "quota"),
    ("kapok", "promises"),
    ("kapok-without-quotas", "promises"),
    ("kapok-reclaiming", "promises"),
    ("kapok-unbounded", "promises-unbounded"),
];

const DEADLINES: [(&str, &str); 4] = [
    ("edf", "deadline"),
    ("edf-preempting", "deadline-preempting"),
    ("kapok", "promises"),
    ("kapok-unbounded", "promises-unbounded"),
];

pub(in crate::bench) fn run() -> Result<Outcome> {
    let philly = jobs("philly", "philly.csv.gz")?;
    let chronus = jobs("chronus", "trace_job_Philly_MIX1.csv.gz")?;
    let mut samples = Vec::new();
    for (target, rule) in FAIRNESS {
        let mut config = rules(rule, POLICY).context(rule)?;
        if !["fifo", "easy", "kapok-without-quotas"].contains(&target) {
            config.tenants = quotas(&philly, PHILLY);
        }
        if target == "kapok-reclaiming" {
            config.reclaim = Reclaim::Worthwhile;
        }
        samples.push(played("philly", (target, config), &philly, PHILLY)?);
    }
    for (target, rule) in DEADLINES {
        let config = rules(rule, POLICY).context(rule)?;
        samples.push(played("chronus-mix1", (target, config), &chronus, CHRONUS)?);
    }
    Ok(Outcome {
        name: "scheduler-queue",
        method: format!(
            "each job of the trace comes at its moment and runs as long as the trace says, which the queue knows; placement \
             is {POLICY} everywhere. philly: {} jobs of 15 virtual clusters on {PHILLY} machines of 8 GPUs, quotas are the \
             clusters' parts of all GPU time, and who needs more borrows; `jain` is Jain's index over virtual clusters of \
             how much longer than alone their jobs took; fifo, easy and \
             kapok-without-quotas know no quotas; kapok-reclaiming stops others where that saves more waiting than it costs; \
             kapok-unbounded keeps no room for those that have waited for a day. chronus-mix1: {} jobs on {CHRONUS} \
             machines, work is saved at the end of each lease; `best_effort_gpu_h` is what was done by the last arrival",
            philly.len(),
            chronus.len()
        ),
        samples,
        compare: None,
        reference: "goal: on Chronus half of the deadlines that earliest-deadline-first misses, at equal best-effort work; the \
                    rules of Kueue are played by our queue (fair sharing, quotas, borrowing), not by Kueue",
    })
}

fn jobs(folder: &str, name: &str) -> Result<Vec<Arrival>> {
    let path = traces(folder)?.join(name);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text)?;
    Ok(trace::jobs(&text)?)
}

fn machines(count: u32) -> Vec<Node> {
    (0..count)
        .map(|number| Node {
            name: format!("machine-{number}"),
            cpu_milli: 64_000,
            memory_mib: 512_000,
            gpus: 8,
            model: "P100".to_owned(),
            ..Node::default()
        })
        .collect()
}

/// Of the machines, to each as much as it asks for of all that is asked for.
fn quotas(arrivals: &[Arrival], machines: u32) -> BTreeMap<String, Tenant> {
    let mut asked: BTreeMap<&str, u128> = BTreeMap::new();
    for arrival in arrivals {
        *asked.entry(&arrival.job.tenant).or_default() +=
            u128::from(arrival.job.gpu_milli()) * u128::from(arrival.runs_ms);
    }
    let all = asked.values().sum::<u128>().max(1);
    let quota = |part: u128| Amounts {
        gpu_milli: u64::try_from(u128::from(machines) * 8_000 * part / all).unwrap_or(u64::MAX),
        ..Amounts::default()
    };
    let tenants = asked.into_iter().map(|(name, part)| {
        let tenant = Tenant {
            nominal: Some(quota(part)),
            ..Tenant::default()
        };
        (name.to_owned(), tenant)
    });
    tenants.collect()
}

fn played(
    case: &str,
    (target, config): (&str, Config),
    arrivals: &[Arrival],
    count: u32,
) -> Result<Sample> {
    let start = now();
    let outcome = play(config, machines(count), arrivals)?;
    let mut figures = BTreeMap::from(outcome.figures());
    figures.insert("wall_s", start.elapsed().as_secs_f64());
    Ok(Sample {
        case: case.to_owned(),
        target: target.to_owned(),
        round: 0,
        figures,
    })
}
