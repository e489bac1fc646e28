use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{EngineCandidate, Tensor};

use super::{Choice, Chosen, Runner, failed, reasons};
use crate::agree::compare;
use crate::engine::{Lane, Loaded};
use crate::warmup;

/// Enough rounds for a median, and enough time an engine for the clock of a shared machine.
const ROUNDS_MIN: usize = 5;
const ROUNDS_MAX: usize = 100;
const TIME_MIN: Duration = Duration::from_millis(40);
const TIME_MAX: Duration = Duration::from_millis(200);

/// One engine's first run on the warm-up data.
struct Ran {
    lane: Box<dyn Lane>,
    outputs: Vec<Tensor>,
}

/// An engine whose answers agree with the reference's.
struct Contender {
    runner: Runner,
    lane: Box<dyn Lane>,
    difference: Option<f64>,
    times: Vec<Duration>,
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
    let mut contenders = Vec::new();
    for (index, runner) in runners.into_iter().enumerate() {
        let first = index == 0;
        match run_once(choice, &runner.loaded, &inputs) {
            Ok(Ran { lane, outputs }) => {
                let agreement = compare(&reference.outputs, &outputs, &choice.sidecar.agree);
                let difference = (!first).then_some(agreement.max_difference);
                if first || agreement.agrees {
                    contenders.push(Contender {
                        runner,
                        lane,
                        difference,
                        times: Vec::new(),
                    });
                } else {
                    candidates.push(disagrees(choice, &runner, difference));
                }
            }
            Err(reason) => candidates.push(failed(runner.engine.name(), reason)),
        }
    }
    let contenders = race(choice, contenders, &inputs, &mut candidates);
    let mut ranked: Vec<_> = contenders.iter().enumerate().map(ranking).collect();
    ranked.append(&mut candidates);
    let Some(winner) = contenders.into_iter().next() else {
        return Err(reasons(&ranked));
    };
    Ok(chosen(winner.runner, Some(winner.lane), ranked))
}

fn ranking((rank, contender): (usize, &Contender)) -> EngineCandidate {
    EngineCandidate {
        engine: contender.runner.engine.name().to_owned(),
        median_ms: Some(millis(contender.median())),
        max_difference: contender.difference,
        verdict: if rank == 0 { "fastest" } else { "slower" }.to_owned(),
    }
}

impl Contender {
    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Times the engines in turns, so that whatever else the machine does meets all of them alike. Fastest first.
fn race(
    choice: &Choice<'_>,
    mut contenders: Vec<Contender>,
    inputs: &Arc<Vec<Tensor>>,
    candidates: &mut Vec<EngineCandidate>,
) -> Vec<Contender> {
    let clock = &choice.tools.clock;
    let started = clock.now();
    let mut rounds = 0;
    loop {
        let engines = u32::try_from(contenders.len()).unwrap_or(u32::MAX);
        if contenders.is_empty() || enough(rounds, engines, started, clock.now()) {
            break;
        }
        let mut left = Vec::with_capacity(contenders.len());
        for Contender {
            runner,
            lane,
            difference,
            mut times,
        } in contenders
        {
            let outputs = runner.loaded.outputs().len();
            match timed_call(choice, (lane, outputs), inputs) {
                Ok((lane, time)) => {
                    times.push(time);
                    left.push(Contender {
                        runner,
                        lane,
                        difference,
                        times,
                    });
                }
                Err(reason) => candidates.push(failed(runner.engine.name(), reason)),
            }
        }
        contenders = left;
        rounds += 1;
    }
    contenders.sort_by_key(Contender::median);
    contenders
}

fn disagrees(choice: &Choice<'_>, runner: &Runner, difference: Option<f64>) -> EngineCandidate {
    tracing::warn!(
        model = choice.source.model,
        engine = runner.engine.name(),
        difference,
        "the engine's answers differ from the reference's; it is not used for this model"
    );
    EngineCandidate {
        engine: runner.engine.name().to_owned(),
        median_ms: None,
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
            match run_once(choice, &runner.loaded, &inputs) {
                Ok(Ran { outputs, .. }) => {
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

/// A new lane's first call, on a compute thread, as every call will be, and with the cores that a call will have.
fn run_once(
    choice: &Choice<'_>,
    loaded: &Arc<dyn Loaded>,
    inputs: &Arc<Vec<Tensor>>,
) -> Result<Ran, String> {
    let (loaded, inputs) = (Arc::clone(loaded), Arc::clone(inputs));
    on_compute_thread(choice, move || {
        let mut lane = loaded.lane().map_err(|error| error.to_string())?;
        let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
        let outputs = lane
            .run(&inputs, &wanted)
            .map_err(|error| error.to_string())?;
        Ok(Ran { lane, outputs })
    })
}

fn timed_call(
    choice: &Choice<'_>,
    (mut lane, outputs): (Box<dyn Lane>, usize),
    inputs: &Arc<Vec<Tensor>>,
) -> Result<(Box<dyn Lane>, Duration), String> {
    let (inputs, clock) = (Arc::clone(inputs), choice.tools.clock.clone());
    on_compute_thread(choice, move || {
        let wanted: Vec<usize> = (0..outputs).collect();
        let began = clock.now();
        drop(
            lane.run(&inputs, &wanted)
                .map_err(|error| error.to_string())?,
        );
        Ok((lane, clock.now().saturating_duration_since(began)))
    })
}

fn on_compute_thread<T: Send + 'static>(
    choice: &Choice<'_>,
    call: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    choice
        .tools
        .compute
        .run_blocking(choice.options.threads, call)
        .unwrap_or_else(|_| Err("panicked on the warm-up data".to_owned()))
}

fn enough(rounds: usize, engines: u32, started: Instant, now: Instant) -> bool {
    let spent = now.saturating_duration_since(started);
    rounds >= ROUNDS_MAX
        || (rounds >= 1 && spent >= TIME_MAX * engines)
        || (rounds >= ROUNDS_MIN && spent >= TIME_MIN * engines)
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
