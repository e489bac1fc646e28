use std::sync::Arc;
use std::time::Duration;

use protocol::sidecar::Sidecar;
use protocol::{InferRequest, Tensor};

use crate::agree;
use crate::call::Call;
use crate::engine::{EngineError, Lane, Loaded, Run, Stop};
use crate::model::Model;
use crate::runtime::Inner;

/// Calls of each version, so that a median means something.
const CALLS_MIN: usize = 15;

/// Answers to one recorded request that are compared.
const ANSWERS_MAX: usize = 64;

/// Differences below this are the machine's.
const NOISE: Duration = Duration::from_millis(1);

/// Both versions on the last requests that the old one answered. Silent for models that do not ask, that have seen no
/// request yet, or that have no engine of their own.
pub(in crate::lifecycle) fn compare(
    inner: &Inner,
    old: &Model,
    new: &Model,
    sidecar: &Sidecar,
) -> Result<(), String> {
    let requests = old.track.recent(sidecar.swap.compare);
    let (Some(by_old), Some(by_new)) = (old.by_engine(), new.by_engine()) else {
        return Ok(());
    };
    if requests.is_empty() {
        return Ok(());
    }
    let mut before = Side::new(old, Arc::clone(&by_old.queue.loaded), by_old.threads)?;
    let mut after = Side::new(new, Arc::clone(&by_new.queue.loaded), by_new.threads)?;
    let rounds = CALLS_MIN.div_ceil(requests.len());
    for round in 0..rounds {
        for (index, request) in requests.iter().enumerate() {
            // What the old version refuses now says nothing about the new one.
            let Ok(expected) = before.run(inner, request) else {
                continue;
            };
            let found = after.run(inner, request).map_err(|error| {
                format!("it fails on a request that the version before answers: {error}")
            })?;
            if round == 0 {
                all_same(&expected, &found, sidecar).map_err(|error| {
                    format!(
                        "it disagrees with the version before on recorded request {index}: {error}"
                    )
                })?;
            }
        }
    }
    let (was, is) = (before.median(), after.median());
    let factor = sidecar.swap.max_p99_regression;
    if factor > 0.0 && is > was.mul_f64(factor) && is > was + NOISE {
        return Err(format!(
            "it is slower than the version before: {:.1} ms a call, {:.1} ms before",
            is.as_secs_f64() * 1e3,
            was.as_secs_f64() * 1e3
        ));
    }
    Ok(())
}

/// One version with a lane of its own, so that the calls of clients go on beside.
struct Side<'a> {
    model: &'a Model,
    loaded: Arc<dyn Loaded>,
    threads: usize,
    lane: Option<Box<dyn Lane>>,
    times: Vec<Duration>,
}

impl<'a> Side<'a> {
    fn new(model: &'a Model, loaded: Arc<dyn Loaded>, threads: usize) -> Result<Self, String> {
        let lane = loaded.lane().map_err(|error| error.to_string())?;
        Ok(Self {
            model,
            loaded,
            threads,
            lane: Some(lane),
            times: Vec::new(),
        })
    }

    /// The answers, each with its outputs in the configuration's order; one unless the model is decoupled.
    fn run(&mut self, inner: &Inner, request: &InferRequest) -> Result<Vec<Vec<Tensor>>, String> {
        let fitted = self.model.interface.fit(request.clone());
        let fitted = fitted.map_err(|error| error.to_string())?;
        let Call { inputs, wanted, .. } = fitted.call;
        let mut lane = self.lane.take().ok_or("its lane is gone")?;
        let (clock, buffers) = (inner.tools.clock.clone(), inner.buffers.clone());
        let aligned = self.loaded.needs_alignment();
        let decoupled = self.model.decoupled();
        let call = move || {
            let align = |input: Tensor| {
                if aligned {
                    input.aligned(&buffers)
                } else {
                    input
                }
            };
            let inputs: Vec<Tensor> = inputs.into_iter().map(align).collect();
            let began = clock.now();
            let answers = if decoupled {
                answers(lane.as_mut(), &inputs, &wanted)
            } else {
                lane.once(&inputs, &wanted).map(|outputs| vec![outputs])
            };
            (lane, answers, clock.now().saturating_duration_since(began))
        };
        let done = inner.tools.compute.run_blocking(self.threads, call);
        let (lane, answers, time) = done.map_err(|_| "the engine panicked".to_owned())?;
        self.lane = Some(lane);
        self.times.push(time + self.loaded.delay());
        answers.map_err(|error| error.to_string())
    }

    fn median(&mut self) -> Duration {
        self.times.sort();
        self.times
            .get(self.times.len() / 2)
            .copied()
            .unwrap_or_default()
    }
}

/// The first answers of a decoupled call, without the waits between them.
fn answers(
    lane: &mut dyn Lane,
    inputs: &[Tensor],
    wanted: &[usize],
) -> Result<Vec<Vec<Tensor>>, EngineError> {
    let mut answers = Vec::new();
    let mut responses = lane.respond(&Run {
        inputs,
        wanted,
        stop: &Stop::default(),
    })?;
    while answers.len() < ANSWERS_MAX
        && let Some(response) = responses.next()?
    {
        answers.push(response.outputs);
    }
    Ok(answers)
}

fn all_same(
    expected: &[Vec<Tensor>],
    found: &[Vec<Tensor>],
    sidecar: &Sidecar,
) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!(
            "it answers {} times, {} before",
            found.len(),
            expected.len()
        ));
    }
    let mut pairs = expected.iter().zip(found);
    pairs.try_for_each(|(expected, found)| same(expected, found, sidecar))
}

fn same(expected: &[Tensor], found: &[Tensor], sidecar: &Sidecar) -> Result<(), String> {
    for old in expected {
        let new = found
            .iter()
            .find(|new| new.name == old.name)
            .ok_or_else(|| format!("there is no output `{}`", old.name))?;
        let agreement = agree::compare(
            std::slice::from_ref(old),
            std::slice::from_ref(new),
            &sidecar.agree,
        );
        if !agreement.agrees {
            return Err(format!(
                "output `{}` differs by up to {}",
                old.name, agreement.max_difference
            ));
        }
    }
    Ok(())
}
