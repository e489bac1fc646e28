//! Minutes of requests, whole, streamed and for names that never come again, after which kapok must be no larger than before.

use anyhow::{Context as _, Result, ensure};

use super::{measure, peers, streams};
use crate::bench::results::Outcome;
use crate::bench::samples::Sample;
use crate::bench::swap::settled_mb;
use crate::bench::{Bench, empty_dir, load};
use crate::workspace::now;

const CONNECTIONS: u32 = 64;

/// Each for another model, over a connection of its own: what a table by name or by caller would grow with.
const NAMES: u32 = 500;

/// Allocators and tables find their size in this part of the time, which counts for no slope.
const WARM: f64 = 0.2;

const MIB_IN_MB: f64 = 1.048_576;

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    load::install()?;
    let scratch = empty_dir(&bench.scratch, "soak")?;
    let (_upstream, kapok) = peers::kapok_alone(bench, &scratch)?;
    let sse_load = peers::compile("sse-load", &scratch)?;
    let minutes = f64::from(bench.options.minutes);
    let started = now();
    let mut samples = Vec::new();
    for round in 0.. {
        let whole = measure(bench, &kapok, CONNECTIONS, round)?;
        let streamed = streams::measure(bench, &sse_load, &kapok, round)?;
        ask_names(&kapok, round)?;
        let minute = started.elapsed().as_secs_f64() / 60.0;
        let resident = settled_mb(kapok.pid())?;
        eprintln!("  minute {minute:.1}: {resident:.1} MB");
        samples.extend([whole, streamed]);
        samples.push(Sample {
            case: "memory".to_owned(),
            target: peers::KAPOK.to_owned(),
            round,
            figures: [("minute", minute), ("resident_mb", resident)].into(),
        });
        if minute >= minutes {
            break;
        }
    }
    let points: Vec<_> = samples.iter().filter_map(point).collect();
    let slope = slope(&points, minutes * WARM).context("too few looks at memory for a slope")?;
    samples.push(Sample {
        case: "growth".to_owned(),
        target: peers::KAPOK.to_owned(),
        round: 0,
        figures: [("mib_per_minute", slope / MIB_IN_MB)].into(),
    });
    Ok(Outcome {
        name: "soak",
        method: format!(
            "{minutes} minutes of rounds: {} s of whole chat answers over {CONNECTIONS} connections, as long of {}, {NAMES} \
             requests for as many models; resident_mb is the median VmRSS of the second after, mib_per_minute the slope \
             of a straight line through those after the first {:.0} % of the time",
            bench.options.seconds,
            streams::METHOD,
            WARM * 100.0
        ),
        samples,
        compare: None,
        reference: "goal: less than 1 MiB a minute",
    })
}

fn ask_names(kapok: &peers::Target, round: u32) -> Result<()> {
    for number in 0..NAMES {
        let model = format!("model-{round}-{number}");
        let body = kapok.body.replacen("mock-model", &model, 1);
        let headers = [("content-type", "application/json")];
        let reply = kapok.http.post(kapok.path, &headers, body.as_bytes())?;
        ensure!(
            reply.status == 200,
            "`{model}` was answered with {}",
            reply.status
        );
    }
    Ok(())
}

fn point(sample: &Sample) -> Option<(f64, f64)> {
    let figures = &sample.figures;
    Some((*figures.get("minute")?, *figures.get("resident_mb")?))
}

/// Of the line with the least squares through the points after `from`.
fn slope(points: &[(f64, f64)], from: f64) -> Option<f64> {
    let points = points.iter().filter(|(at, _)| *at >= from);
    let (count, x, y, xx, xy) = points.fold((0.0, 0.0, 0.0, 0.0, 0.0), |sums, (at, value)| {
        let (count, x, y, xx, xy) = sums;
        (
            count + 1.0,
            x + at,
            y + value,
            xx + at * at,
            xy + at * value,
        )
    });
    let spread = count * xx - x * x;
    (spread > 0.0).then(|| (count * xy - x * y) / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_line_after_the_start() {
        let points = [(0.0, 10.0), (1.0, 50.0), (2.0, 52.0), (4.0, 56.0)];
        assert_eq!(slope(&points, 1.0), Some(2.0));
        assert_eq!(slope(&points, 3.0), None);
        assert_eq!(slope(&[], 0.0), None);
    }
}
