//! Chat requests through gateways: what each adds to the latency, whole and streamed, and what CPU it costs.
//!
//! Reading order: this file (what is measured), [`peers`] (how each gateway is started), [`streams`] (streamed answers),
//! [`soak`] (for minutes), [`idle`] (many that say nothing).

pub(super) mod idle;
pub(super) mod peers;
pub(super) mod soak;
mod streams;

use anyhow::{Context as _, Result};

use super::load::{self, Post};
use super::results::Outcome;
use super::samples::{Compare, Sample, of_burst};
use super::usage::Cpu;
use super::{Bench, empty_dir};
use peers::{DIRECT, KAPOK, NGINX, Target};

const CONNECTIONS: [u32; 3] = [1, 64, 256];

/// A case in which a peer fails is left out; not so these, without which there is no result.
const MUST_ANSWER: [&str; 3] = [DIRECT, NGINX, KAPOK];

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    load::install()?;
    let scratch = empty_dir(&bench.scratch, "gateway")?;
    let targets = peers::all(bench, &scratch)?;
    let sse_load = peers::compile("sse-load", &scratch)?;
    let indices: Vec<_> = (0..targets.len()).collect();
    let mut samples = Vec::new();
    for connections in CONNECTIONS {
        for (round, index) in bench.rounds(&indices) {
            let target = targets.get(index).context("an index of the list")?;
            keep(
                &mut samples,
                target,
                measure(bench, target, connections, round),
            )?;
        }
    }
    for (round, index) in bench.rounds(&indices) {
        let target = targets.get(index).context("an index of the list")?;
        keep(
            &mut samples,
            target,
            streams::measure(bench, &sse_load, target, round),
        )?;
    }
    let added = [
        ("p50_us", "added_p50_us"),
        ("first_p50_us", "added_first_us"),
    ];
    for (figure, name) in added {
        add_difference(&mut samples, figure, name);
    }
    Ok(Outcome {
        name: "gateway",
        method: format!(
            "POST /v1/chat/completions ({} bytes) to one upstream that answers at once; wrk -t1, {} s a burst, {} rounds, all \
             gateways interleaved and the order reversed each round; then {}. cpu_ms_per_1k is user and kernel time of the \
             gateway's process tree per 1,000 requests (events, of streams); added_* is the difference to `direct` in the same \
             round; busy_cores is everything on the machine, load generator and upstream included",
            peers::REQUEST.len(),
            bench.options.seconds,
            bench.options.rounds,
            streams::METHOD,
        ),
        samples,
        compare: Some(Compare {
            figure: "cpu_ms_per_1k",
            baseline: NGINX,
        }),
        reference: "goals: CPU ≤ 1.3 × nginx's and ≤ 1/3.5 of vllm-router's, added p50 at one connection ≤ 35 us, first \
                    event ≤ 300 us later than direct",
    })
}

fn keep(samples: &mut Vec<Sample>, target: &Target, measured: Result<Sample>) -> Result<()> {
    match measured {
        Ok(sample) => samples.push(sample),
        Err(error) if MUST_ANSWER.contains(&target.name) => return Err(error),
        Err(error) => eprintln!("left out: {error:#}"),
    }
    Ok(())
}

fn measure(bench: &Bench<'_>, target: &Target, connections: u32, round: u32) -> Result<Sample> {
    let post = Post {
        url: format!("{}{}", target.http.base(), target.path),
        headers: vec![("content-type", "application/json")],
        body: target.body.as_bytes(),
    };
    let before = Cpu::at_rest(target.pid())?;
    let burst = load::wrk(&bench.scratch, &post, connections, bench.duration())
        .with_context(|| format!("`{}` with {connections} connections", target.name))?;
    let after = Cpu::now(target.pid())?;
    Ok(of_burst(
        (target.name, format!("{connections} connections"), round),
        burst,
        (before, after),
    ))
}

/// What a gateway adds to `figure`, held against the upstream itself in the same round.
fn add_difference(samples: &mut [Sample], figure: &'static str, name: &'static str) {
    let direct: Vec<_> = samples
        .iter()
        .filter(|sample| sample.target == DIRECT)
        .filter_map(|sample| {
            Some((
                sample.case.clone(),
                sample.round,
                *sample.figures.get(figure)?,
            ))
        })
        .collect();
    for sample in samples.iter_mut().filter(|sample| sample.target != DIRECT) {
        let base = direct
            .iter()
            .find(|(case, round, _)| *case == sample.case && *round == sample.round);
        if let (Some((_, _, base)), Some(value)) = (base, sample.figures.get(figure)) {
            sample.figures.insert(name, value - base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_held_against_direct_in_the_same_round() {
        let sample = |target: &str, round, p50| Sample {
            case: "1 connections".to_owned(),
            target: target.to_owned(),
            round,
            figures: [("p50_us", p50)].into(),
        };
        let mut samples = [
            sample(KAPOK, 0, 50.0),
            sample(DIRECT, 0, 20.0),
            sample(DIRECT, 1, 200.0),
            sample(KAPOK, 1, 240.0),
            sample(KAPOK, 2, 9.0),
        ];
        add_difference(&mut samples, "p50_us", "added");
        let added: Vec<_> = samples
            .iter()
            .map(|sample| sample.figures.get("added").copied())
            .collect();
        assert_eq!(added, [Some(30.0), None, None, Some(40.0), None]);
    }
}
