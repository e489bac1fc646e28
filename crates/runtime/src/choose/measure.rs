use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{EngineCandidate, Tensor};

use super::{Choice, Chosen, Runner, chosen, layout, reasons};
use crate::agree::compare;
use crate::engine::{EngineError, Lane};
use crate::warmup;

/// Enough rounds for a median, and enough time an engine for the clock of a shared machine.
const ROUNDS_MIN: usize = 5;
const ROUNDS_MAX: usize = 100;
const TIME_MIN: Duration = Duration::from_millis(40);
const TIME_MAX: Duration = Duration::from_millis(200);

/// One engine's first run on the warm-up data.
pub(super) struct Ran {
    pub(super) lane: Box<dyn Lane>,
    outputs: Vec<Tensor>,
}

/// An engine whose answers agree with the reference's.
pub(super) struct Contender {
    pub(super) runner: Runner,
    pub(super) lane: Box<dyn Lane>,
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
        candidates.push(runner.candidate("fastest".to_owned()));
        return Ok(chosen(runner, None, candidates));
    }
    let _alone = choice.tools.quiet.write();
    let (inputs, reference) = match reference(choice, &runners) {
        Ok(found) => found,
        Err(verdicts) => return Ok(unproved(choice, runners, (verdicts, candidates))),
    };
    // Engines before the reference could not run what it can.
    let unable = runners.drain(..reference.before.len());
    for (runner, verdict) in unable.zip(&reference.before) {
        let verdict = verdict.clone();
        candidates.push(runner.candidate(verdict));
    }
    let mut contenders = Vec::new();
    for (index, runner) in runners.into_iter().enumerate() {
        let first = index == 0;
        match run_once(choice, &runner, &inputs) {
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
            Err(error) => candidates.push(runner.candidate(error.to_string())),
        }
    }
    let contenders = race(choice, contenders, &inputs, &mut candidates);
    let mut ranked: Vec<_> = contenders.iter().enumerate().map(ranking).collect();
    ranked.append(&mut candidates);
    let Some(winner) = contenders.into_iter().next() else {
        return Err(reasons(&ranked));
    };
    Ok(layout::weigh(choice, winner, &inputs, ranked))
}

/// No guess ran on any engine; the first one serves all the same, because requests may be what it can run.
fn unproved(
    choice: &Choice<'_>,
    runners: Vec<Runner>,
    (verdicts, mut candidates): (Vec<String>, Vec<EngineCandidate>),
) -> Chosen {
    let told = runners.iter().zip(verdicts);
    let told = told.map(|(runner, verdict)| runner.candidate(verdict));
    candidates.splice(0..0, told);
    let mut runners = runners.into_iter();
    let runner = runners.next().expect("an engine that has loaded");
    tracing::warn!(
        model = choice.source.model,
        engine = runner.name(),
        reason = candidates[0].verdict,
        "no warm-up data suits the model, so its engines were not compared; give shapes in the sidecar's [warmup]"
    );
    chosen(runner, None, candidates)
}

fn ranking((rank, contender): (usize, &Contender)) -> EngineCandidate {
    EngineCandidate {
        median_ms: Some(millis(contender.median())),
        max_difference: contender.difference,
        ..contender
            .runner
            .candidate(if rank == 0 { "fastest" } else { "slower" })
    }
}

impl Contender {
    pub(super) fn median(&self) -> Duration {
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
            match timed_call(choice, (&runner, lane), inputs) {
                Ok((lane, time)) => {
                    times.push(time);
                    left.push(Contender {
                        runner,
                        lane,
                        difference,
                        times,
                    });
                }
                Err(error) => candidates.push(runner.candidate(error.to_string())),
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
        engine = runner.name(),
        difference,
        "the engine's answers differ from the reference's; it is not used for this model"
    );
    EngineCandidate {
        max_difference: difference,
        ..runner.candidate("disagrees")
    }
}

/// The answer to compare with.
struct Reference {
    /// What to say of each engine that was asked before and could not answer.
    before: Vec<String>,
    outputs: Vec<Tensor>,
}

/// The first engine that runs a guess, and that guess; or what to say of each engine.
fn reference(
    choice: &Choice<'_>,
    runners: &[Runner],
) -> Result<(Arc<Vec<Tensor>>, Reference), Vec<String>> {
    let mut before = Vec::new();
    for runner in runners {
        match first_run(choice, runner) {
            Ok((inputs, Ran { outputs, .. })) => {
                return Ok((inputs, Reference { before, outputs }));
            }
            Err(verdict) => before.push(verdict),
        }
    }
    Err(before)
}

/// Runs an engine chosen earlier once; the lane has run.
pub(super) fn prove(choice: &Choice<'_>, runner: &Runner) -> Result<Box<dyn Lane>, String> {
    first_run(choice, runner).map(|(_, ran)| ran.lane)
}

/// Asks the engine with its own specs, which may know the model better than the others', until a guess runs.
fn first_run(choice: &Choice<'_>, runner: &Runner) -> Result<(Arc<Vec<Tensor>>, Ran), String> {
    let mut failure = None;
    let mut refused = false;
    for inputs in warmup::guesses(runner.loaded.inputs(), &choice.sidecar.warmup) {
        let inputs = Arc::new(inputs);
        let error = match run_once(choice, runner, &inputs) {
            Ok(ran) => return Ok((inputs, ran)),
            Err(error) => error,
        };
        tracing::debug!(
            model = choice.source.model,
            engine = runner.name(),
            %error,
            "warm-up data does not suit"
        );
        match error {
            EngineError::Input(_) => refused = true,
            error => failure = Some(error),
        }
    }
    Err(match failure {
        // Not one guess was the wrong shape or type: what fails is the engine.
        Some(failure) if !refused => format!("cannot run the warm-up data: {failure}"),
        _ => "not measured: no warm-up data suits the model".to_owned(),
    })
}

/// A new lane's first call, on a compute thread, as every call will be, and with the cores that a call will have.
pub(super) fn run_once(
    choice: &Choice<'_>,
    runner: &Runner,
    inputs: &Arc<Vec<Tensor>>,
) -> Result<Ran, EngineError> {
    let (loaded, inputs) = (Arc::clone(&runner.loaded), Arc::clone(inputs));
    on_compute_thread(choice, runner, move || {
        let mut lane = loaded.lane()?;
        let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
        let outputs = lane.once(&inputs, &wanted)?;
        Ok(Ran { lane, outputs })
    })
}

pub(super) fn timed_call(
    choice: &Choice<'_>,
    (runner, mut lane): (&Runner, Box<dyn Lane>),
    inputs: &Arc<Vec<Tensor>>,
) -> Result<(Box<dyn Lane>, Duration), EngineError> {
    let (inputs, clock) = (Arc::clone(inputs), choice.tools.clock.clone());
    let outputs = runner.loaded.outputs().len();
    on_compute_thread(choice, runner, move || {
        let wanted: Vec<usize> = (0..outputs).collect();
        let began = clock.now();
        drop(lane.once(&inputs, &wanted)?);
        Ok((lane, clock.now().saturating_duration_since(began)))
    })
}

fn on_compute_thread<T: Send + 'static>(
    choice: &Choice<'_>,
    runner: &Runner,
    call: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let compute = &choice.tools.compute;
    let done = compute.run_blocking(runner.contestant.options.threads, call);
    done.unwrap_or_else(|_| {
        Err(EngineError::Failed {
            engine: runner.name(),
            reason: "panicked on the warm-up data".to_owned(),
        })
    })
}

fn enough(rounds: usize, engines: u32, started: Instant, now: Instant) -> bool {
    let spent = now.saturating_duration_since(started);
    rounds >= ROUNDS_MAX
        || (rounds >= 1 && spent >= TIME_MAX * engines)
        || (rounds >= ROUNDS_MIN && spent >= TIME_MIN * engines)
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
