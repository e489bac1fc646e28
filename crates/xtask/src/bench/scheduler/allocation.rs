//! Full GPUs: `kapok simulate` on the lists of cluster-trace-gpu-v2023, beside what FGD's artifact published.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};

use super::super::Bench;
use super::super::results::Outcome;
use super::super::samples::{Compare, Sample};
use super::{lists, runs, simulate, traces};
use crate::process::output;

/// The artifact's seeds.
const SEEDS: &str = "42..51";

const POLICIES: [&str; 8] = [
    "random",
    "dotproduct",
    "gpuclustering",
    "gpupacking",
    "bestfit",
    "fgd",
    "kapok",
    "kapok-online",
];

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    Ok(Outcome {
        name: "scheduler-allocation",
        method: format!(
            "inflation test of the FGD artifact (USENIX ATC'23): requests of each list in random order until they ask for \
             130 % of 6,212 GPUs, seeds {SEEDS} (a round is a seed); `alloc_pct` is of all GPUs at the end, `published` the \
             artifact's own result for that policy, list and seed"
        ),
        samples: samples(bench)?,
        compare: Some(Compare {
            figure: "alloc_pct",
            baseline: "fgd",
        }),
        reference: "goal: 0.8 points more than FGD in the mean, fewer on no list",
    })
}

/// Every list, policy and seed, and what was published.
fn samples(bench: &Bench<'_>) -> Result<Vec<Sample>> {
    let folder = traces("openb")?;
    let mut command = simulate(bench, &folder);
    for list in lists(&folder)? {
        command.arg("--pods").arg(list);
    }
    command.args(["--policy", &POLICIES.join(","), "--seeds", SEEDS]);
    let expected = output(
        Command::new("gzip")
            .arg("-dc")
            .arg(folder.join("fgd_expected.csv.gz")),
    )?;
    let mut samples = Vec::new();
    for run in runs(&mut command)? {
        let text = |name: &str| run[name].as_str().unwrap_or_default();
        let seed = run["seed"].as_u64().context("a run without a seed")?;
        let mut figures = BTreeMap::new();
        for (figure, metric, mark) in [
            ("alloc_pct", "alloc_pct", "130"),
            ("alloc_pct_at_90", "alloc_pct", "90"),
            ("frag_ratio_pct_at_60", "frag_ratio_pct", "60"),
        ] {
            let value = run[metric][mark].as_f64();
            figures.insert(
                figure,
                value.with_context(|| format!("no {metric} at {mark}"))?,
            );
        }
        let ours = [text("workload"), text("policy")];
        figures.extend(published(&expected, ours, seed).map(|value| ("published", value)));
        samples.push(Sample {
            case: text("workload").to_owned(),
            target: text("policy").to_owned(),
            round: u32::try_from(seed)?,
            figures,
        });
    }
    Ok(samples)
}

/// `alloc_pct,<list>,06-FGD,42,…` and the last of the values.
fn published(expected: &str, [list, policy]: [&str; 2], seed: u64) -> Option<f64> {
    let line = expected.lines().find(|line| {
        let fields: Vec<_> = line.split(',').take(4).collect();
        let [metric, workload, name, number] = fields[..] else {
            return false;
        };
        let name = name
            .split_once('-')
            .map_or(name, |(_, name)| name)
            .to_lowercase();
        // The artifact says DotProd.
        let same = name == policy || policy == "dotproduct" && name == "dotprod";
        metric == "alloc_pct" && workload == list && same && number == seed.to_string()
    })?;
    line.rsplit(',').next()?.parse().ok()
}
