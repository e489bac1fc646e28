use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Clock;
use protocol::{EngineCandidate, Tensor};

use super::{Choice, Chosen, Runner, failed, reasons};
use crate::agree::compare;
use crate::engine::{Lane, Loaded};
use crate::warmup;

/// Enough calls for a median, and enough time for the clock of a shared machine.
const CALLS_MIN: usize = 5;
const CALLS_MAX: usize = 100;
const TIME_MIN: Duration = Duration::from_millis(40);
const TIME_MAX: Duration = Duration::from_millis(200);

/// One engine's run on the warm-up data.
struct Measured {
    lane: Box<dyn Lane>,
    outputs: Vec<Tensor>,
    median: Duration,
}

/// Runs every engine on the same inputs; the fastest that agrees with the reference wins.
///
/// An engine without competition is run too, which proves that it can; that no guess of ours suits its inputs is no
/// reason not to serve.
pub(super) fn fastest(
    choice: &Choice<'_>,
    mut runners: Vec<Runner>,
    mut candidates: Vec<EngineCandidate>,
) -> Result<Chosen, String> {
    let built_in = runners.len() == 1 && runners[0].loaded.inline_bytes_max() > 0;
    if built_in {
        // Nothing to learn: no file, no competition, perhaps a delay of minutes.
        let runner = runners.remove(0);
        candidates.push(failed(runner.engine.name(), "fastest".to_owned()));
        return Ok(chosen(runner, None, candidates));
    }
    let _alone = choice.tools.quiet.write();
    let Some((inputs, reference)) = reference(choice, &runners) else {
        let model = &choice.source.model;
        let runner = runners.remove(0);
        tracing::warn!(
            model,
            engine = runner.engine.name(),
            "no warm-up data suits the model, so its engines were not compared; give shapes in the sidecar's [warmup]"
        );
        let verdict = "not measured: no warm-up data suits the model".to_owned();
        candidates.push(failed(runner.engine.name(), verdict));
        return Ok(chosen(runner, None, candidates));
    };
    // Engines before the reference could not run what it can.
    for runner in runners.drain(..reference.index) {
        let verdict = "cannot run the warm-up data".to_owned();
        candidates.push(failed(runner.engine.name(), verdict));
    }
    let mut agreeing: Vec<(Runner, Measured, Option<f64>)> = Vec::new();
    for (index, runner) in runners.into_iter().enumerate() {
        let first = index == 0;
        match measure(choice, &runner.loaded, &inputs, true) {
            Ok(measured) => {
                let agreement =
                    compare(&reference.outputs, &measured.outputs, &choice.sidecar.agree);
                let difference = (!first).then_some(agreement.max_difference);
                if first || agreement.agrees {
                    agreeing.push((runner, measured, difference));
                } else {
                    candidates.push(disagrees(choice, &runner, &measured, difference));
                }
            }
            Err(reason) => candidates.push(failed(runner.engine.name(), reason)),
        }
    }
    agreeing.sort_by_key(|(_, measured, _)| measured.median);
    let mut ranked: Vec<_> = agreeing
        .iter()
        .enumerate()
        .map(|(rank, (runner, measured, difference))| EngineCandidate {
            engine: runner.engine.name().to_owned(),
            median_ms: Some(millis(measured.median)),
            max_difference: *difference,
            verdict: if rank == 0 { "fastest" } else { "slower" }.to_owned(),
        })
        .collect();
    ranked.append(&mut candidates);
    let Some((runner, measured, _)) = agreeing.into_iter().next() else {
        return Err(reasons(&ranked));
    };
    Ok(chosen(runner, Some(measured.lane), ranked))
}

fn disagrees(
    choice: &Choice<'_>,
    runner: &Runner,
    measured: &Measured,
    difference: Option<f64>,
) -> EngineCandidate {
    tracing::warn!(
        model = choice.source.model,
        engine = runner.engine.name(),
        difference,
        "the engine's answers differ from the reference's; it is not used for this model"
    );
    EngineCandidate {
        engine: runner.engine.name().to_owned(),
        median_ms: Some(millis(measured.median)),
        max_difference: difference,
        verdict: "disagrees".to_owned(),
    }
}

/// The answer to compare with, and which engine gave it.
struct Reference {
    index: usize,
    outputs: Vec<Tensor>,
}

/// The first engine that runs a guess, and that guess.
fn reference(choice: &Choice<'_>, runners: &[Runner]) -> Option<(Arc<Vec<Tensor>>, Reference)> {
    for (index, runner) in runners.iter().enumerate() {
        // Each engine is asked with its own specs; they may know the model better than the others'.
        for inputs in warmup::guesses(runner.loaded.inputs(), &choice.sidecar.warmup) {
            let inputs = Arc::new(inputs);
            match measure(choice, &runner.loaded, &inputs, false) {
                Ok(Measured { outputs, .. }) => {
                    return Some((inputs, Reference { index, outputs }));
                }
                Err(reason) => tracing::debug!(
                    model = choice.source.model,
                    engine = runner.engine.name(),
                    reason,
                    "warm-up data does not suit"
                ),
            }
        }
    }
    None
}

/// On a compute thread, as every call will be, and with the cores that a call will have.
fn measure(
    choice: &Choice<'_>,
    loaded: &Arc<dyn Loaded>,
    inputs: &Arc<Vec<Tensor>>,
    timed: bool,
) -> Result<Measured, String> {
    let tools = choice.tools;
    let (loaded, inputs, clock) = (Arc::clone(loaded), Arc::clone(inputs), tools.clock.clone());
    let run = move || call(loaded.as_ref(), &inputs, &clock, timed);
    tools
        .compute
        .run_blocking(choice.options.threads, run)
        .unwrap_or_else(|_| Err("panicked on the warm-up data".to_owned()))
}

fn call(
    loaded: &dyn Loaded,
    inputs: &[Tensor],
    clock: &Clock,
    timed: bool,
) -> Result<Measured, String> {
    let mut lane = loaded.lane().map_err(|error| error.to_string())?;
    let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
    let mut run = |inputs: &[Tensor]| lane.run(inputs, &wanted).map_err(|error| error.to_string());
    let outputs = run(inputs)?;
    let mut times: Vec<Duration> = Vec::new();
    let started = clock.now();
    while timed && !enough(times.len(), started, clock.now()) {
        let began = clock.now();
        drop(run(inputs)?);
        times.push(clock.now().saturating_duration_since(began));
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Measured {
        lane,
        outputs,
        median,
    })
}

fn enough(calls: usize, started: Instant, now: Instant) -> bool {
    let spent = now.saturating_duration_since(started);
    calls >= CALLS_MAX
        || (calls >= 1 && spent >= TIME_MAX)
        || (calls >= CALLS_MIN && spent >= TIME_MIN)
}

fn chosen(runner: Runner, lane: Option<Box<dyn Lane>>, candidates: Vec<EngineCandidate>) -> Chosen {
    Chosen {
        loaded: runner.loaded,
        lane,
        engine: runner.engine.name(),
        version: runner.engine.version(),
        candidates,
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
