//! Streamed answers: many at a time, a token every 10 ms.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::peers::Target;
use crate::bench::Bench;
use crate::bench::samples::Sample;
use crate::bench::usage::Cpu;
use crate::process::output;

const STREAMS: u32 = 64;

pub(super) const METHOD: &str = "64 streams at a time of 50 events, one per 10 ms (own client; first_* from the request to the \
                                 first event, delay_* from an event's writing by the upstream to its arrival)";

#[derive(Deserialize)]
struct Said {
    events: f64,
    errors: u64,
    seconds: f64,
    first_p50_us: f64,
    first_p99_us: f64,
    delay_p50_us: f64,
    delay_p99_us: f64,
}

pub(super) fn measure(
    bench: &Bench<'_>,
    program: &Path,
    target: &Target,
    round: u32,
) -> Result<Sample> {
    let body = bench.scratch.join("stream.body");
    std::fs::write(&body, target.streamed())?;
    let before = Cpu::at_rest(target.pid())?;
    let said = output(
        Command::new(program)
            .arg(target.http.base().trim_start_matches("http://"))
            .arg(target.path)
            .arg(&body)
            .args([STREAMS.to_string(), bench.options.seconds.to_string()]),
    )?;
    let after = Cpu::now(target.pid())?;
    let said: Said = serde_json::from_str(&said).context("in what sse-load said")?;
    ensure!(
        said.errors == 0 && said.events > 0.0,
        "`{}` failed {} streams and passed {} events on",
        target.name,
        said.errors,
        said.events
    );
    let figures = [
        (
            "cpu_ms_per_1k",
            (after.tree - before.tree) * 1e6 / said.events,
        ),
        ("per_second", said.events / said.seconds),
        ("first_p50_us", said.first_p50_us),
        ("first_p99_us", said.first_p99_us),
        ("delay_p50_us", said.delay_p50_us),
        ("delay_p99_us", said.delay_p99_us),
        (
            "busy_cores",
            (after.machine - before.machine) / said.seconds,
        ),
    ];
    Ok(Sample {
        case: format!("{STREAMS} streams"),
        target: target.name.to_owned(),
        round,
        figures: figures.into(),
    })
}
