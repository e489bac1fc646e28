//! `engine: auto`: load with every engine that can, run all on the same data, keep the fastest that agrees.
//!
//! The reference is the first engine in the order of preference that runs the warm-up data: the most complete one comes
//! first, so what differs from it is more likely wrong. The choice is kept in a file, and the next start loads one engine.

mod cache;
mod layout;
mod measure;

use std::sync::Arc;

use base::Clock;
use parking_lot::RwLock;
use protocol::EngineCandidate;
use protocol::sidecar::{PrecisionChoice, Sidecar};

pub(crate) use cache::Cache;

use crate::compute::ComputePool;
use crate::engine::{Engine, Lane, LoadOptions, Loaded, Precision, Source};

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// In the order of preference.
    pub(crate) engines: &'a [Arc<dyn Engine>],
    pub(crate) source: &'a Source,
    pub(crate) sidecar: &'a Sidecar,
    pub(crate) options: LoadOptions,
    /// Another way to use the cores, to be weighed against `options` with the engine that won.
    pub(crate) alternative: Option<LoadOptions>,
    pub(crate) tools: &'a Tools,
}

/// What choosing needs whatever the model.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) clock: Clock,
    pub(crate) compute: ComputePool,
    pub(crate) cache: Option<Cache>,
    /// Read while loading, written while measuring: figures taken beside a loading model say nothing.
    pub(crate) quiet: RwLock<()>,
}

/// A model in memory, and how its engine was chosen.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) loaded: Arc<dyn Loaded>,
    /// A lane that has run already.
    pub(crate) lane: Option<Box<dyn Lane>>,
    pub(crate) engine: &'static str,
    pub(crate) version: String,
    pub(crate) precision: Precision,
    /// Of a call, as the model was loaded.
    pub(crate) threads: usize,
    pub(crate) candidates: Vec<EngineCandidate>,
}

/// An engine, and how it computes.
#[derive(Debug, Clone)]
pub(crate) struct Contestant {
    engine: Arc<dyn Engine>,
    options: LoadOptions,
}

impl Contestant {
    fn candidate(&self, verdict: impl Into<String>) -> EngineCandidate {
        EngineCandidate {
            engine: self.engine.name().to_owned(),
            precision: self.options.precision,
            threads: self.options.threads,
            median_ms: None,
            calls_per_s: None,
            max_difference: None,
            verdict: verdict.into(),
        }
    }
}

/// An engine that has the model in memory.
struct Runner {
    contestant: Contestant,
    loaded: Arc<dyn Loaded>,
}

impl Runner {
    fn name(&self) -> &'static str {
        self.contestant.engine.name()
    }

    fn candidate(&self, verdict: impl Into<String>) -> EngineCandidate {
        self.contestant.candidate(verdict)
    }
}

impl Choice<'_> {
    /// Loads the model with the engine that serves it best; the error says what each engine answered.
    pub(crate) fn make(&self) -> Result<Chosen, String> {
        let contestants = self.able()?;
        let weighed = contestants.len() > 1 || self.alternative.is_some();
        let key = match &self.tools.cache {
            Some(cache) if weighed => cache.key(self, &contestants),
            _ => None,
        };
        if let Some(chosen) = key
            .as_deref()
            .and_then(|key| self.remembered(key, &contestants))
        {
            return Ok(chosen);
        }
        let mut candidates = Vec::new();
        let mut runners = Vec::new();
        for contestant in contestants {
            match self.load(&contestant) {
                Ok(loaded) => runners.push(Runner { contestant, loaded }),
                Err(reason) => candidates.push(contestant.candidate(reason)),
            }
        }
        if runners.is_empty() {
            return Err(reasons(&candidates));
        }
        let chosen = measure::fastest(self, runners, candidates)?;
        // A choice that nothing has proved is not worth keeping.
        if let (Some(cache), Some(key), Some(_)) = (&self.tools.cache, key, &chosen.lane) {
            cache.write(&key, &chosen);
        }
        Ok(chosen)
    }

    /// Who may try, in the order of preference, and whole precision before half: what differs from the first is doubted.
    fn able(&self) -> Result<Vec<Contestant>, String> {
        let named = self.sidecar.engine.name();
        let engines: Vec<_> = self
            .engines
            .iter()
            .filter(|engine| named.is_none_or(|name| name == engine.name()))
            .filter(|engine| engine.accepts(self.source))
            .collect();
        let backend = &self.source.backend;
        if engines.is_empty() {
            return Err(match named {
                Some(name) => format!("engine `{name}` does not serve backend `{backend}`"),
                None => no_backend(backend),
            });
        }
        let mut able = Vec::new();
        for precision in [Precision::Fp32, Precision::Bf16] {
            let wanted = self.sidecar.precision.allows(precision);
            let computes = |engine: &&&Arc<dyn Engine>| engine.precisions().contains(&precision);
            able.extend(
                engines
                    .iter()
                    .filter(computes)
                    .filter(|_| wanted)
                    .map(|engine| Contestant {
                        engine: Arc::clone(engine),
                        options: LoadOptions {
                            precision,
                            ..self.options
                        },
                    }),
            );
        }
        if able.is_empty() {
            let PrecisionChoice::Bf16 = self.sidecar.precision else {
                return Err(format!("no engine computes backend `{backend}` in fp32"));
            };
            return Err(format!(
                "precision `bf16`: no engine of this machine computes backend `{backend}` in it; OpenVINO does on \
                 processors with avx512_bf16 or amx_bf16"
            ));
        }
        Ok(able)
    }

    fn load(&self, contestant: &Contestant) -> Result<Arc<dyn Loaded>, String> {
        let _loading = self.tools.quiet.read();
        self.load_now(contestant)
    }

    /// As [`Self::load`], for who has seen to the quiet.
    fn load_now(&self, contestant: &Contestant) -> Result<Arc<dyn Loaded>, String> {
        let engine = &contestant.engine;
        let load = || engine.load(self.source, contestant.options);
        // A model that makes an engine panic is a model that does not load.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(load)) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("engine `{}` panicked while loading", engine.name())),
        }
    }

    /// The engine chosen at an earlier start, if it still loads and runs.
    fn remembered(&self, key: &str, contestants: &[Contestant]) -> Option<Chosen> {
        let remembered = self.tools.cache.as_ref()?.read(key)?;
        let mut contestant = contestants
            .iter()
            .find(|contestant| {
                contestant.engine.name() == remembered.engine
                    && contestant.options.precision == remembered.precision
            })?
            .clone();
        if remembered.threads != contestant.options.threads {
            let alternative = self.alternative?;
            contestant.options = LoadOptions {
                precision: remembered.precision,
                ..alternative
            };
        }
        let engine = contestant.engine.name();
        let proved = self.load(&contestant).and_then(|loaded| {
            let _loading = self.tools.quiet.read();
            let runner = Runner { contestant, loaded };
            let lane = measure::prove(self, &runner)?;
            Ok((runner, lane))
        });
        match proved {
            Ok((runner, lane)) => Some(chosen(runner, Some(lane), remembered.candidates)),
            Err(reason) => {
                tracing::warn!(
                    model = self.source.model,
                    engine,
                    reason,
                    "the engine chosen earlier does not serve; choosing again"
                );
                None
            }
        }
    }
}

/// Triton's words, its status before them, because tools look for the whole.
pub(crate) fn no_backend(backend: &str) -> String {
    format!(
        "Invalid argument: unable to find backend library for backend '{backend}', try specifying runtime on the model configuration."
    )
}

fn chosen(runner: Runner, lane: Option<Box<dyn Lane>>, candidates: Vec<EngineCandidate>) -> Chosen {
    let Runner { contestant, loaded } = runner;
    Chosen {
        loaded,
        lane,
        engine: contestant.engine.name(),
        version: contestant.engine.version(),
        precision: contestant.options.precision,
        threads: contestant.options.threads,
        candidates,
    }
}

/// Every engine's answer on one line; the engines' own messages name themselves.
fn reasons(candidates: &[EngineCandidate]) -> String {
    let reasons: Vec<_> = candidates
        .iter()
        .map(|candidate| candidate.verdict.as_str())
        .collect();
    reasons.join("; ")
}

#[cfg(test)]
mod tests;
