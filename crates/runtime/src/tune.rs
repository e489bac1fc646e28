//! Measures one model with each engine, layout and batch on its warm-up data: what `kapok models tune` does.
//!
//! It needs the machine for itself: figures taken beside other work say little.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use protocol::Tensor;
use protocol::sidecar::{Agree, Warmup};

use crate::agree::compare;
use crate::definition::{Definition, Terms};
use crate::engine::{Engine, Lane, LoadOptions, Loaded, Source};
use crate::repository::{Found, scan};
use crate::warmup::guesses;

/// Batches tried; beyond 32, what a batch saves on a CPU no longer grows.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Fewer say nothing, however long they took.
const ROUNDS_MIN: usize = 3;

/// A smaller batch is preferred when it gives this share of the best rate: it waits less.
const ENOUGH: f64 = 0.95;

/// What to measure, and with what.
#[derive(Debug)]
pub struct Tune<'a> {
    pub repository: &'a Path,
    pub model: &'a str,
    /// The first that runs the model is the reference of the others.
    pub engines: &'a [Arc<dyn Engine>],
    pub cores: usize,
    /// As [`crate::Config::gpus`].
    pub gpus: &'a [i32],
    /// As [`crate::Config::complete_configs`].
    pub completes: bool,
    /// Of one measurement, at least.
    pub time: Duration,
    pub clock: Clock,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub engine: &'static str,
    pub lanes: usize,
    pub threads: usize,
    pub batch: usize,
    /// Of one call.
    pub median_ms: f64,
    /// Items a second, all lanes together.
    pub rate: f64,
}

/// All measurements and the best of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    pub measured: Vec<Measured>,
    pub best: Measured,
    /// Why an engine was not measured.
    pub left_out: Vec<(&'static str, String)>,
    /// Whether the model takes batches at all.
    pub batches: bool,
}

impl Tune<'_> {
    /// The error is for people: the model is not there, or nothing runs it.
    pub fn run(&self) -> Result<Tuned, String> {
        let found = self.found()?;
        let definition = Definition::read(&found, None, &Terms::of(self.gpus, self.completes))?;
        let folder = found.versions.values().next_back();
        let source = definition.source(folder.unwrap_or(&found.folder))?;
        let rows_max = definition.rows_max();
        let mut tuned = Tally::default();
        for engine in self.engines.iter().filter(|engine| engine.accepts(&source)) {
            let outcome = self.engine(
                engine.as_ref(),
                (&source, &definition),
                rows_max,
                &mut tuned,
            );
            if let Err(reason) = outcome {
                tuned.left_out.push((engine.name(), reason));
            }
        }
        let Some(best) = best(&tuned.measured) else {
            let reasons = tuned
                .left_out
                .iter()
                .map(|(engine, reason)| format!("{engine}: {reason}"));
            return Err(match reasons.collect::<Vec<_>>().join("; ") {
                reasons if reasons.is_empty() => crate::choose::no_backend(&source.backend),
                reasons => reasons,
            });
        };
        Ok(Tuned {
            batches: tuned.measured.iter().any(|measured| measured.batch > 1),
            measured: tuned.measured,
            best,
            left_out: tuned.left_out,
        })
    }

    fn found(&self) -> Result<Found, String> {
        let all = scan(&[self.repository.to_owned()]).map_err(|error| error.to_string())?;
        let names: Vec<_> = all.iter().map(|found| found.name.clone()).collect();
        let found = all.into_iter().find(|found| found.name == self.model);
        found.ok_or_else(|| {
            let near = base::nearest(self.model, names.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            format!("there is no model `{}` in the repository{hint}", self.model)
        })
    }

    /// Every way to share the cores among lanes of one engine, each with every batch.
    fn engine(
        &self,
        engine: &dyn Engine,
        (source, definition): (&Source, &Definition),
        rows_max: Option<usize>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut threads = 1;
        while threads <= self.cores {
            let lanes = self.cores / threads;
            let options = LoadOptions {
                threads,
                lanes,
                ..LoadOptions::default()
            };
            let loaded = engine
                .load(source, options)
                .map_err(|error| error.to_string())?;
            definition.complete(loaded.inputs(), loaded.outputs())?;
            let inputs = first_inputs(loaded.as_ref(), &definition.sidecar.warmup)?;
            tally.agrees(loaded.as_ref(), &inputs, &definition.sidecar.agree)?;
            for batch in batches(loaded.as_ref(), rows_max) {
                let Some(inputs) = with_rows(loaded.as_ref(), &inputs, batch) else {
                    continue;
                };
                // A batch that the model cannot run after all is no reason to leave the engine out.
                if let Ok((median, rate)) = self.measure(loaded.as_ref(), &inputs, lanes) {
                    tally.measured.push(Measured {
                        engine: engine.name(),
                        lanes,
                        threads,
                        batch,
                        median_ms: median.as_secs_f64() * 1e3,
                        #[expect(clippy::cast_precision_loss, reason = "a batch is at most 32")]
                        rate: rate * batch as f64,
                    });
                }
            }
            threads *= 2;
        }
        Ok(())
    }

    /// The median of a call and calls a second, with all lanes busy.
    fn measure(
        &self,
        loaded: &dyn Loaded,
        inputs: &[Tensor],
        lanes: usize,
    ) -> Result<(Duration, f64), String> {
        let lanes: Vec<_> = (0..lanes)
            .map(|_| loaded.lane().map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
        let wanted = wanted.as_slice();
        let began = self.clock.now();
        let times = std::thread::scope(|scope| {
            let running: Vec<_> = lanes
                .into_iter()
                .map(|lane| scope.spawn(move || self.rounds(lane, inputs, wanted)))
                .collect();
            let mut all = Vec::new();
            for lane in running {
                all.extend(
                    lane.join()
                        .map_err(|_| "the engine panicked".to_owned())??,
                );
            }
            Ok::<_, String>(all)
        })?;
        let spent = self.clock.now().saturating_duration_since(began);
        let mut times = times;
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "calls of a moment")]
        let rate = times.len() as f64 / spent.as_secs_f64().max(1e-9);
        Ok((median, rate))
    }

    fn rounds(
        &self,
        mut lane: Box<dyn Lane>,
        inputs: &[Tensor],
        wanted: &[usize],
    ) -> Result<Vec<Duration>, String> {
        let began = self.clock.now();
        let mut times = Vec::new();
        loop {
            let before = self.clock.now();
            drop(
                lane.once(inputs, wanted)
                    .map_err(|error| error.to_string())?,
            );
            let after = self.clock.now();
            times.push(after.saturating_duration_since(before));
            if times.len() >= ROUNDS_MIN && after.saturating_duration_since(began) >= self.time {
                return Ok(times);
            }
        }
    }
}

/// What has been found so far.
#[derive(Default)]
struct Tally {
    measured: Vec<Measured>,
    left_out: Vec<(&'static str, String)>,
    /// The first engine's answer to the warm-up data.
    reference: Option<Vec<Tensor>>,
}

impl Tally {
    fn agrees(
        &mut self,
        loaded: &dyn Loaded,
        inputs: &[Tensor],
        agree: &Agree,
    ) -> Result<(), String> {
        let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
        let outputs = loaded
            .lane()
            .and_then(|mut lane| lane.once(inputs, &wanted))
            .map_err(|error| error.to_string())?;
        match &self.reference {
            None => self.reference = Some(outputs),
            Some(reference) => {
                let agreement = compare(reference, &outputs, agree);
                if !agreement.agrees {
                    return Err(format!(
                        "its answers differ from the reference's by up to {:.1e}",
                        agreement.max_difference
                    ));
                }
            }
        }
        Ok(())
    }
}

fn first_inputs(loaded: &dyn Loaded, warmup: &Warmup) -> Result<Vec<Tensor>, String> {
    let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
    let mut lane = loaded.lane().map_err(|error| error.to_string())?;
    let mut failure =
        "no warm-up data suits the model; give shapes in the sidecar's [warmup]".to_owned();
    for inputs in guesses(loaded.inputs(), warmup) {
        match lane.once(&inputs, &wanted) {
            Ok(_) => return Ok(inputs),
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}

/// Batches within what was written, if every input leaves its first dimension open.
fn batches(loaded: &dyn Loaded, rows_max: Option<usize>) -> Vec<usize> {
    let open = |spec: &protocol::TensorSpec| spec.shape.first() == Some(&-1);
    let batches = loaded.inputs().iter().chain(loaded.outputs()).all(open);
    let largest = if batches {
        rows_max.unwrap_or(usize::MAX)
    } else {
        1
    };
    BATCHES
        .into_iter()
        .filter(|batch| *batch <= largest)
        .collect()
}

/// The same inputs with another first dimension.
fn with_rows(loaded: &dyn Loaded, inputs: &[Tensor], batch: usize) -> Option<Vec<Tensor>> {
    if batch == 1 {
        return Some(inputs.to_vec());
    }
    let shapes: BTreeMap<_, _> = inputs
        .iter()
        .map(|input| {
            let mut shape = input.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = batch;
            }
            (input.name.clone(), shape)
        })
        .collect();
    let warmup = Warmup { shapes };
    guesses(loaded.inputs(), &warmup).next()
}

/// The highest rate; of nearly equal ones, the smallest batch and then the fastest call.
fn best(measured: &[Measured]) -> Option<Measured> {
    let highest = measured.iter().map(|one| one.rate).fold(0.0, f64::max);
    let good = measured.iter().filter(|one| one.rate >= highest * ENOUGH);
    let order = |one: &&Measured, other: &&Measured| {
        let batch = one.batch.cmp(&other.batch);
        batch.then(one.median_ms.total_cmp(&other.median_ms))
    };
    good.min_by(order).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, repository};

    #[test]
    fn every_layout_and_batch_is_measured_and_disagreeing_engines_are_left_out() {
        let root = repository(&[("m/1/model.onnx", "ok")]);
        let mut wrong = Fake::new("rten");
        wrong.offset = 5.0;
        let engines = [Fake::new("onnxruntime").engine(), wrong.engine()];
        let tune = |model| Tune {
            completes: true,
            repository: root.path(),
            model,
            engines: &engines,
            cores: 2,
            gpus: &[],
            time: Duration::ZERO,
            clock: Clock::real(),
        };
        let tuned = tune("m").run().expect("measured");
        let seen: Vec<_> = tuned
            .measured
            .iter()
            .map(|one| (one.engine, one.lanes, one.threads, one.batch))
            .collect();
        let all = |lanes, threads| BATCHES.map(|batch| ("onnxruntime", lanes, threads, batch));
        assert_eq!(seen, [all(2, 1), all(1, 2)].concat());
        assert_eq!(tuned.left_out.len(), 1);
        assert_eq!(tuned.left_out[0].0, "rten");
        assert!(tuned.batches && tuned.measured.contains(&tuned.best));
        let strict = Tune {
            completes: false,
            ..tune("m")
        };
        let refused = strict.run().expect_err("there is no configuration");
        assert!(
            refused.contains("model configuration is not provided for model 'm'"),
            "{refused}"
        );
        let missing = tune("n").run().expect_err("no such model");
        assert_eq!(
            missing,
            "there is no model `n` in the repository; did you mean `m`?"
        );
    }

    #[test]
    fn the_best_is_the_smallest_batch_of_nearly_the_highest_rate() {
        let one = |batch, rate, median_ms| Measured {
            engine: "rten",
            lanes: 1,
            threads: 1,
            batch,
            median_ms,
            rate,
        };
        let measured = [
            one(1, 50.0, 1.0),
            one(8, 97.0, 9.0),
            one(8, 96.0, 8.0),
            one(16, 100.0, 20.0),
        ];
        assert_eq!(best(&measured), Some(one(8, 96.0, 8.0)));
        assert_eq!(best(&[]), None);
    }
}
