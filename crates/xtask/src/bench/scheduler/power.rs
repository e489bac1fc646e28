//! Watts against allocation: one knob.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use scheduler::simulate::{Inflation, powered};
use scheduler::trace;

use super::super::Bench;
use super::super::results::Outcome;
use super::super::samples::{Compare, Sample};
use super::{traces, unzipped};

/// Thousandths of a GPU that may be lost for each kilowatt that is not drawn; `kapok` is `kapok@0`.
const POLICIES: [&str; 7] = [
    "fgd",
    "kapok",
    "kapok@50",
    "kapok@100",
    "kapok@300",
    "kapok@1000",
    "kapok@3000",
];

/// Percent of the GPUs that are allocated when the cluster's draw is read.
const MARKS: [(u64, &str); 5] = [
    (20, "kw_at_20"),
    (40, "kw_at_40"),
    (60, "kw_at_60"),
    (80, "kw_at_80"),
    (90, "kw_at_90"),
];

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let folder = traces("openb")?;
    let nodes = fs::read_to_string(folder.join("openb_node_list_gpu_node.csv"))?;
    let nodes = powered(trace::nodes(&nodes)?);
    let mut samples = Vec::new();
    for list in ["default", "gpuspec33"] {
        let pods = unzipped(&folder.join(format!("openb_pod_list_{list}.csv.gz")))?;
        let pods = trace::pods(&pods)?;
        for round in 0..bench.options.rounds {
            let world = Inflation::new(&nodes, &pods, 42 + u64::from(round))?;
            for policy in POLICIES {
                let drawn = world.drawn(world.policy(policy)?, &MARKS.map(|(mark, _)| mark));
                let kilowatts = drawn.watts.iter().map(|watts| *watts as f64 / 1e3);
                let names = MARKS.iter().map(|(_, name)| *name);
                let mut figures: BTreeMap<_, _> = names.zip(kilowatts).collect();
                figures.insert("alloc_pct", drawn.allocated_pct);
                samples.push(Sample {
                    case: list.to_owned(),
                    target: policy.to_owned(),
                    round,
                    figures,
                });
            }
        }
    }
    Ok(Outcome {
        name: "scheduler-power",
        method: "the inflation test (a round is a seed, from 42 on) with the watts of each model that the authors of PWR give; \
                 kilowatts of the whole cluster when so many percent of its GPUs are allocated, and GPUs allocated in the end; \
                 `kapok@N` may lose N thousandths of a GPU for each kilowatt that is not drawn"
            .to_owned(),
        samples,
        compare: Some(Compare {
            figure: "kw_at_60",
            baseline: "fgd",
        }),
        reference: "PWR with FGD (arXiv 2412.17484): up to 20 % less power than FGD below saturation; goal: the same for 0.1 points \
                    of allocation",
    })
}
