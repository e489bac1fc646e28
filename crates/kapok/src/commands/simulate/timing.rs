//! How long decisions take, by this machine's clock.

use std::time::Duration;

use base::Clock;
use scheduler::Node;
use scheduler::simulate::{Inflation, Moment};
use serde_json::{Value, json};

use super::Job;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

pub(super) fn run(jobs: &[Job<'_>], nodes: &[Node], printer: &Printer) -> Outcome {
    let mut runs = Vec::new();
    for job in jobs {
        runs.push(measure(job, nodes).map_err(|error| Failure::failed(error.to_string()))?);
    }
    printer.print(&json!({"runs": runs}), |document, style| {
        table(document, style)
    })?;
    Ok(())
}

fn measure(job: &Job<'_>, nodes: &[Node]) -> Result<Value, scheduler::Error> {
    let world = Inflation::new(nodes, job.pods, job.seed)?;
    let clock = Clock::real();
    let mut latencies: Vec<Duration> = Vec::with_capacity(world.requests.len());
    let started = clock.now();
    let policy = world.policy(job.policy)?;
    let planned = clock.now() - started;
    let mut began = clock.now();
    let outcome = world.watch(policy, &mut |moment| match moment {
        Moment::Arrives => began = clock.now(),
        Moment::Decided => latencies.push(clock.now() - began),
    });
    let wall = clock.now() - started;
    let deciding: Duration = latencies.iter().sum();
    latencies.sort_unstable();
    let at = |permille: usize| {
        let index = latencies.len() * permille / 1_000;
        let latency = latencies.get(index.min(latencies.len().saturating_sub(1)));
        latency.copied().unwrap_or_default().as_secs_f64() * 1e6
    };
    Ok(json!({
        "workload": job.workload,
        "policy": job.policy,
        "seed": job.seed,
        "nodes": nodes.len(),
        "decisions": latencies.len(),
        "decisions_s": latencies.len() as f64 / deciding.as_secs_f64().max(1e-9),
        "p50_us": at(500),
        "p99_us": at(990),
        "worst_us": at(1_000),
        "plan_ms": planned.as_secs_f64() * 1e3,
        "wall_s": wall.as_secs_f64(),
        "alloc_pct": outcome.curve.at(130).allocated_pct,
    }))
}

fn table(document: &Value, style: Style) -> String {
    let mut table = Table::new(&[
        "WORKLOAD",
        "POLICY",
        "NODES",
        "DECISIONS/S",
        "P50",
        "P99",
        "WORST",
        "WALL",
    ]);
    for run in document["runs"].as_array().into_iter().flatten() {
        let number = |name: &str| run[name].as_f64().unwrap_or_default();
        table.row([
            run["workload"].as_str().unwrap_or_default().to_owned(),
            run["policy"].as_str().unwrap_or_default().to_owned(),
            format!("{:.0}", number("nodes")),
            format!("{:.0}", number("decisions_s")),
            format!("{:.1} µs", number("p50_us")),
            format!("{:.1} µs", number("p99_us")),
            format!("{:.0} µs", number("worst_us")),
            format!("{:.2} s", number("wall_s")),
        ]);
    }
    table.render(style)
}
