//! Explanations of jobs that wait, held against what happens.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use scheduler::simulate::Foretelling;
use scheduler::trace;

use super::super::Bench;
use super::super::results::Outcome;
use super::super::samples::Sample;
use super::{traces, unzipped};

/// Some hundred jobs are explained of so many in a round.
const JOBS: u64 = 6_000;
const EACH: u64 = 5;

/// Of what the nodes can do: above it the line only grows, and with it the time to explain it.
const LOAD: f64 = 1.0;

/// One node in so many of the trace's, so that kinds are there in their shares.
const NODES: usize = 14;

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let folder = traces("openb")?;
    let nodes = fs::read_to_string(folder.join("openb_node_list_gpu_node.csv"))?;
    let nodes: Vec<_> = trace::nodes(&nodes)?.into_iter().step_by(NODES).collect();
    let pods = trace::pods(&unzipped(&folder.join("openb_pod_list_default.csv.gz"))?)?;
    let mut samples = Vec::new();
    for round in 0..bench.options.rounds {
        let world = Foretelling {
            load: LOAD,
            jobs: JOBS,
            each: EACH,
            seed: 7 + u64::from(round),
        };
        let foretold = world.run(nodes.clone(), &pods)?;
        let percent = |part: u32, of: u32| 100.0 * f64::from(part) / f64::from(of.max(1));
        samples.push(Sample {
            case: format!("load {LOAD}"),
            target: "kapok".to_owned(),
            round,
            figures: BTreeMap::from([
                ("explained", foretold.explained.into()),
                ("advised_pct", percent(foretold.advised, foretold.explained)),
                ("changes", foretold.told.into()),
                (
                    "changes_that_place_pct",
                    percent(foretold.kept, foretold.told),
                ),
                ("estimates", foretold.estimated.into()),
                (
                    "within_p50_pct",
                    percent(foretold.within_p50, foretold.estimated),
                ),
                (
                    "within_p90_pct",
                    percent(foretold.within_p90, foretold.estimated),
                ),
            ]),
        });
    }
    Ok(Outcome {
        name: "scheduler-explain",
        method: format!(
            "{JOBS} jobs a round (a seed) with requests and durations of the default list's pods that ran at most two hours, on \
             each {NODES}th node; each {EACH}th job that has to wait is explained when it comes; every change that is told is \
             applied in a copy of the queue, whose next step must start the job; estimates are compared with the wait, after the \
             first sixty"
        ),
        samples,
        compare: None,
        reference: "goals: 99 % of the changes place the job; 85 to 95 % of the jobs start within the p90",
    })
}
