//! A lane a core, or one lane on all cores? Measured with the engine that won, on the data that it won with.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use protocol::{EngineCandidate, Tensor};

use super::measure::{self, Contender, millis};
use super::{Choice, Chosen, Contestant, Runner, chosen};
use crate::engine::{Lane, LoadOptions};

/// Sharing out one call costs more than a shorter one is worth.
const WORTH_IT: Duration = Duration::from_millis(1);

/// How long one way is measured, at most.
const TIME: Duration = Duration::from_millis(150);

const ROUNDS_MIN: u32 = 3;
const ROUNDS_MAX: u32 = 50;

/// One lane answers each call sooner, so that is chosen even for a little less throughput: less than what two
/// measurements of the same thing differ by here.
const LESS_IS_ENOUGH: f64 = 0.95;

/// The winner as it was loaded, or loaded the other way if that serves as much.
pub(super) fn weigh(
    choice: &Choice<'_>,
    winner: Contender,
    inputs: &Arc<Vec<Tensor>>,
    mut ranked: Vec<EngineCandidate>,
) -> Chosen {
    let median = winner.median();
    let Contender { runner, lane, .. } = winner;
    let Some(alternative) = choice.alternative.filter(|_| median > WORTH_IT) else {
        return chosen(runner, Some(lane), ranked);
    };
    let other = Contestant {
        options: LoadOptions {
            precision: runner.contestant.options.precision,
            ..alternative
        },
        ..runner.contestant.clone()
    };
    let rounds = rounds(median);
    let (lanes, lane) = match several(choice, (&runner, lane), inputs, rounds) {
        Ok(measured) => measured,
        Err(reason) => return unweighed(choice, runner, ranked, &reason),
    };
    let measured = one(choice, other.clone(), inputs, rounds);
    let (rate, time, rival, rival_lane) = match measured {
        Ok(measured) => measured,
        Err(reason) => {
            ranked.insert(1, other.candidate(reason));
            return chosen(runner, Some(lane), ranked);
        }
    };
    ranked[0].calls_per_s = Some(lanes);
    let mut entry = EngineCandidate {
        median_ms: Some(millis(time)),
        calls_per_s: Some(rate),
        ..other.candidate("fewer calls a second")
    };
    if rate < lanes * LESS_IS_ENOUGH {
        ranked.insert(1, entry);
        return chosen(runner, Some(lane), ranked);
    }
    "fastest".clone_into(&mut entry.verdict);
    "no more calls a second, each takes longer".clone_into(&mut ranked[0].verdict);
    ranked.insert(0, entry);
    chosen(rival, Some(rival_lane), ranked)
}

fn unweighed(
    choice: &Choice<'_>,
    runner: Runner,
    ranked: Vec<EngineCandidate>,
    reason: &str,
) -> Chosen {
    tracing::warn!(
        model = choice.source.model,
        engine = runner.name(),
        reason,
        "lanes and threads could not be weighed; using a lane a core"
    );
    chosen(runner, None, ranked)
}

fn rounds(median: Duration) -> u32 {
    let fitting = TIME.as_nanos() / median.as_nanos().max(1);
    u32::try_from(fitting)
        .unwrap_or(ROUNDS_MAX)
        .clamp(ROUNDS_MIN, ROUNDS_MAX)
}

/// Calls a second of all lanes together.
fn several(
    choice: &Choice<'_>,
    (runner, first): (&Runner, Box<dyn Lane>),
    inputs: &Arc<Vec<Tensor>>,
    rounds: u32,
) -> Result<(f64, Box<dyn Lane>), String> {
    let options = runner.contestant.options;
    let mut lanes = vec![first];
    while lanes.len() < options.lanes {
        let ran = measure::run_once(choice, runner, inputs).map_err(|error| error.to_string())?;
        lanes.push(ran.lane);
    }
    let count = lanes.len();
    let outputs = runner.loaded.outputs().len();
    let clock = &choice.tools.clock;
    let (done, results) = mpsc::sync_channel(count);
    let started = clock.now();
    for mut lane in lanes {
        let (inputs, done) = (Arc::clone(inputs), done.clone());
        let work = move || {
            let wanted: Vec<usize> = (0..outputs).collect();
            let calls = (0..rounds).try_for_each(|_| lane.once(&inputs, &wanted).map(drop));
            // Nobody waits any more when another lane has failed.
            let _unheard = done.send(calls.map(|()| lane));
        };
        choice
            .tools
            .compute
            .submit(options.threads, work)
            .map_err(|_| "the compute threads have too much to do".to_owned())?;
    }
    drop(done);
    let mut last = None;
    for _ in 0..count {
        let result = results.recv().map_err(|_| "a lane panicked".to_owned())?;
        last = Some(result.map_err(|error| error.to_string())?);
    }
    let spent = clock.now().saturating_duration_since(started);
    let calls = f64::from(rounds) * count as f64;
    let lane = last.ok_or("no lane was measured")?;
    Ok((rate(calls, spent), lane))
}

/// Calls a second of one lane on all cores, and the time of one.
fn one(
    choice: &Choice<'_>,
    contestant: Contestant,
    inputs: &Arc<Vec<Tensor>>,
    rounds: u32,
) -> Result<(f64, Duration, Runner, Box<dyn Lane>), String> {
    let loaded = choice.load_now(&contestant)?;
    let runner = Runner { contestant, loaded };
    let first = measure::run_once(choice, &runner, inputs).map_err(|error| error.to_string())?;
    let mut lane = first.lane;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (used, time) = measure::timed_call(choice, (&runner, lane), inputs)
            .map_err(|error| error.to_string())?;
        lane = used;
        times.push(time);
    }
    let rate = rate(f64::from(rounds), times.iter().sum());
    times.sort();
    let median = times[times.len() / 2];
    Ok((rate, median, runner, lane))
}

fn rate(calls: f64, spent: Duration) -> f64 {
    calls / spent.as_secs_f64().max(1e-9)
}
