//! Results as text: the FGD artifact's columns, and a page with curves and bars.

mod html;
mod svg;

use std::fmt::Write as _;

use super::curve::{Curve, MARKS, Point};
use super::{Outcome, Stay};
use crate::policy::NAMES;

pub use html::page;

/// One run, and what it was a run of.
#[derive(Debug, Clone)]
pub struct Result<T> {
    pub workload: String,
    /// As users type it.
    pub policy: String,
    pub seed: u64,
    pub outcome: T,
}

/// A figure of a point.
pub type Of = fn(Point) -> f64;

/// What the artifact's results are, and how to read them from a point of a curve.
pub const METRICS: [(&str, Of); 3] = [
    ("alloc_pct", |point| point.allocated_pct),
    ("frag_ratio_pct", |point| point.frag_ratio_pct),
    ("frag_amount_pct_of_capacity", |point| point.frag_pct),
];

/// `metric,workload,policy,seed`, then the values at [`MARKS`].
pub fn csv(results: &[Result<Outcome>]) -> String {
    let mut text = "metric,workload,policy,seed".to_owned();
    for mark in MARKS {
        text.push_str(&format!(",{mark}"));
    }
    text.push('\n');
    for (metric, value) in METRICS {
        for result in results {
            text.push_str(&row(metric, result));
            for mark in MARKS {
                // Writing to a string does not fail.
                let _ok = write!(text, ",{:.4}", value(result.outcome.curve.at(mark)));
            }
            text.push('\n');
        }
    }
    text
}

/// The figures of [`Stay`] and their names.
pub fn figures(stay: &Stay) -> [(&'static str, f64); 8] {
    [
        ("alloc_pct", stay.allocated_pct),
        ("wait_mean_s", stay.wait_mean_s),
        ("wait_p50_s", stay.wait_p50_s),
        ("wait_p95_s", stay.wait_p95_s),
        ("wait_8gpu_mean_s", stay.wait_large_mean_s),
        ("arrived", stay.arrived.into()),
        ("placed", stay.placed.into()),
        ("dropped", stay.dropped.into()),
    ]
}

/// `metric,workload,policy,seed,value`.
pub fn stay_csv(results: &[Result<Stay>]) -> String {
    let mut text = "metric,workload,policy,seed,value\n".to_owned();
    for result in results {
        for (metric, value) in figures(&result.outcome) {
            text.push_str(&format!("{},{value:.4}\n", row(metric, result)));
        }
    }
    text
}

fn row<T>(metric: &str, result: &Result<T>) -> String {
    let policy = artifact(&result.policy);
    let workload = field(&result.workload);
    format!("{metric},{workload},{policy},{}", result.seed)
}

/// As the artifact calls it.
fn artifact(policy: &str) -> &str {
    let known = NAMES.iter().find(|(name, _)| *name == policy);
    known.map_or(policy, |(_, artifact)| artifact)
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Workloads and policies in the order in which they first occur.
fn names<'a, T>(results: &'a [Result<T>], of: impl Fn(&'a Result<T>) -> &'a str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for result in results {
        let name = of(result);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Over all seeds.
fn mean(curves: &[&Curve], percent: u32, value: Of) -> f64 {
    let sum: f64 = curves.iter().map(|curve| value(curve.at(percent))).sum();
    sum / curves.len().max(1) as f64
}

#[cfg(test)]
mod tests;
