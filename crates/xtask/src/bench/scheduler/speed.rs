//! Decisions per second: `kapok simulate --timing` on the public cluster and on copies of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::super::Bench;
use super::super::results::Outcome;
use super::super::samples::Sample;
use super::{runs, simulate, traces};

/// Copies of the 1,213 nodes that make a hundred thousand.
const TILES: [u32; 2] = [1, 83];

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let folder = traces("openb")?;
    let mut samples = Vec::new();
    for (round, tile) in bench.rounds(&TILES) {
        samples.extend(speed(bench, &folder, (round, tile))?);
    }
    Ok(Outcome {
        name: "scheduler-speed",
        method: format!(
            "the inflation test with the default list, decisions timed one by one on one thread, on the cluster itself and on \
             {} copies of it",
            TILES[1]
        ),
        samples,
        compare: None,
        reference: "Kueue 43 workloads/s, kube-scheduler's gate 270 pods/s, YuniKorn 833/s, Nomad 3,750/s, the FGD artifact about \
                    18/s; goals: 50,000/s on 1,213 nodes, 20,000/s on 100,000, p99 below 1 ms on one core",
    })
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
