//! Figures by case, target and round; medians, and ratios within a round.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::load::Burst;
use super::usage::Cpu;

/// One measurement of one target.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    pub(super) case: String,
    pub(super) target: String,
    pub(super) round: u32,
    pub(super) figures: BTreeMap<&'static str, f64>,
}

/// The figures of one burst against one process.
pub(super) fn of_burst(
    (target, case, round): (&str, String, u32),
    burst: Burst,
    (before, after): (Cpu, Cpu),
) -> Sample {
    let figures = [
        (
            "cpu_ms_per_1k",
            (after.tree - before.tree) * 1e6 / burst.requests,
        ),
        ("per_second", burst.requests / burst.seconds),
        burst.latency[0],
        burst.latency[1],
        (
            "busy_cores",
            (after.machine - before.machine) / burst.seconds,
        ),
    ];
    Sample {
        case,
        target: target.to_owned(),
        round,
        figures: figures.into(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// None without a value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len() % 2 == 0 {
            f64::midpoint(*values.get(middle - 1)?, upper)
        } else {
            upper
        };
        Some(Self {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// What one target did in one case over all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) case: String,
    pub(super) target: String,
    pub(super) figures: BTreeMap<&'static str, Spread>,
    /// Of the figure that matters to the baseline's, round by round: the machine's own speed cancels out.
    pub(super) ratio: Option<Spread>,
}

/// The figure that is compared, and with whom.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Compare {
    pub(super) figure: &'static str,
    pub(super) baseline: &'static str,
}

/// In the order in which cases and targets first appear.
pub(super) fn summarise(samples: &[Sample], compare: Option<Compare>) -> Vec<Summary> {
    let mut seen = BTreeSet::new();
    let mut summaries = Vec::new();
    for sample in samples {
        if !seen.insert((&sample.case, &sample.target)) {
            continue;
        }
        let own: Vec<_> = samples
            .iter()
            .filter(|s| s.case == sample.case && s.target == sample.target)
            .collect();
        let names: BTreeSet<_> = own.iter().flat_map(|s| s.figures.keys().copied()).collect();
        let spread = |name| Spread::of(own.iter().filter_map(|s| s.figures.get(name).copied()));
        let figures = names.iter().filter_map(|name| Some((*name, spread(name)?)));
        summaries.push(Summary {
            case: sample.case.clone(),
            target: sample.target.clone(),
            figures: figures.collect(),
            ratio: compare.and_then(|compare| ratio(samples, &own, compare)),
        });
    }
    // Cases stay together whatever order they were measured in; the sort keeps the order of targets.
    let order: Vec<_> = samples.iter().map(|sample| sample.case.clone()).collect();
    summaries.sort_by_key(|summary| order.iter().position(|case| *case == summary.case));
    summaries
}

fn ratio(samples: &[Sample], own: &[&Sample], compare: Compare) -> Option<Spread> {
    let ratios = own.iter().filter_map(|sample| {
        let base = samples.iter().find(|s| {
            s.case == sample.case && s.round == sample.round && s.target == compare.baseline
        })?;
        let value = sample.figures.get(compare.figure)?;
        let base = base.figures.get(compare.figure)?;
        (*base > 0.0).then(|| value / base)
    });
    Spread::of(ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(target: &str, round: u32, value: f64) -> Sample {
        Sample {
            case: "c=1".to_owned(),
            target: target.to_owned(),
            round,
            figures: [("cpu", value)].into(),
        }
    }

    #[test]
    fn the_median_lies_between_the_middle_two() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was ten times slower in the second round; the ratio does not notice.
        let samples = [
            sample("nginx", 0, 10.0),
            sample("kapok", 0, 20.0),
            sample("kapok", 1, 200.0),
            sample("nginx", 1, 100.0),
        ];
        let compare = Compare {
            figure: "cpu",
            baseline: "nginx",
        };
        let summaries = summarise(&samples, Some(compare));
        assert_eq!(summaries.len(), 2);
        let kapok = &summaries[1];
        assert_eq!(kapok.target, "kapok");
        assert_eq!(kapok.ratio, Spread::of([2.0, 2.0]));
    }
}
