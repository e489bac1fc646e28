//! Full GPUs, and decisions per second: `kapok simulate` on the public traces.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Bench;
use super::results::Outcome;
use super::samples::{Compare, Sample};
use crate::process::output;
use crate::workspace::root;

/// Beside the checkout; public, and too large to keep.
const TRACES: &str = "../shared/data/traces/openb";

/// Copies of the 1,213 nodes that make a hundred thousand.
const TILES: [u32; 2] = [1, 83];

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

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let folder = root().join(TRACES);
    ensure!(
        folder.is_dir(),
        "the traces are expected in `{}`: lists of cluster-trace-gpu-v2023",
        folder.display()
    );
    let mut samples = allocation(bench, &folder)?;
    for (round, tile) in bench.rounds(&TILES) {
        samples.extend(speed(bench, &folder, (round, tile))?);
    }
    Ok(Outcome {
        name: "scheduler",
        method: format!(
            "inflation test of the FGD artifact (USENIX ATC'23): requests of each list in random order until they ask for \
             130 % of 6,212 GPUs, seeds {SEEDS} (a round is a seed); `alloc_pct` is of all GPUs at the end, `published` the \
             artifact's own result for that policy, list and seed; decisions timed one by one on one thread, default list, \
             on the cluster itself and on {} copies of it",
            TILES[1]
        ),
        samples,
        compare: Some(Compare {
            figure: "alloc_pct",
            baseline: "fgd",
        }),
        reference: "Kueue 43 workloads/s, kube-scheduler's gate 270 pods/s, YuniKorn 833/s, Nomad 3,750/s, the FGD artifact about \
                    18/s; goals: 50,000/s on 1,213 nodes, 20,000/s on 100,000, p99 below 1 ms on one core",
    })
}

/// Every list, policy and seed, and what was published.
fn allocation(bench: &Bench<'_>, folder: &Path) -> Result<Vec<Sample>> {
    let mut command = simulate(bench, folder);
    for list in lists(folder)? {
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

fn speed(bench: &Bench<'_>, folder: &Path, (round, tile): (u32, u32)) -> Result<Vec<Sample>> {
    let mut command = simulate(bench, folder);
    let list = folder.join("openb_pod_list_default.csv.gz");
    command
        .arg("--pods")
        .arg(list)
        .args(["--policy", "fgd,kapok", "--seeds", "42", "--timing"]);
    command.args(["--tile", &tile.to_string()]);
    let mut samples = Vec::new();
    for run in runs(&mut command)? {
        let mut figures = BTreeMap::new();
        for figure in [
            "decisions_s",
            "p50_us",
            "p99_us",
            "worst_us",
            "plan_ms",
            "wall_s",
        ] {
            let value = run[figure].as_f64();
            figures.insert(figure, value.with_context(|| format!("no {figure}"))?);
        }
        samples.push(Sample {
            case: format!("decisions on {} nodes", run["nodes"]),
            target: run["policy"].as_str().unwrap_or_default().to_owned(),
            round,
            figures,
        });
    }
    Ok(samples)
}

fn simulate(bench: &Bench<'_>, folder: &Path) -> Command {
    let mut command = Command::new(&bench.binary);
    command.args(["simulate", "--output", "json", "--nodes"]);
    command.arg(folder.join("openb_node_list_gpu_node.csv"));
    command
}

fn runs(command: &mut Command) -> Result<Vec<Value>> {
    let document: Value = serde_json::from_str(&output(command)?)?;
    document["runs"]
        .as_array()
        .cloned()
        .context("no runs in the answer")
}

fn lists(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut lists = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("openb_pod_list_") {
            lists.push(path);
        }
    }
    lists.sort();
    Ok(lists)
}
