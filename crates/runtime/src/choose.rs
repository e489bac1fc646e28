//! `engine: auto`: load with every engine that can, run all on the same data, keep the fastest that agrees.
//!
//! The reference is the first engine in the order of preference that runs the warm-up data: the most complete one comes
//! first, so what differs from it is more likely wrong. The choice is kept in a file, and the next start loads one engine.

mod cache;
mod measure;

use std::sync::Arc;

use base::Clock;
use parking_lot::RwLock;
use protocol::EngineCandidate;
use protocol::sidecar::Sidecar;

pub(crate) use cache::Cache;

use crate::compute::ComputePool;
use crate::engine::{Engine, Lane, LoadOptions, Loaded, Source};

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// In the order of preference.
    pub(crate) engines: &'a [Arc<dyn Engine>],
    pub(crate) source: &'a Source,
    pub(crate) sidecar: &'a Sidecar,
    pub(crate) options: LoadOptions,
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
    pub(crate) candidates: Vec<EngineCandidate>,
}

/// An engine that has the model in memory.
struct Runner {
    engine: Arc<dyn Engine>,
    loaded: Arc<dyn Loaded>,
}

impl Choice<'_> {
    /// Loads the model with the engine that serves it best; the error says what each engine answered.
    pub(crate) fn make(&self) -> Result<Chosen, String> {
        let engines = self.able()?;
        let key = match (&self.tools.cache, engines.len()) {
            (None, _) | (_, 1) => None,
            (Some(cache), _) => cache.key(self, &engines),
        };
        if let Some(chosen) = key
            .as_deref()
            .and_then(|key| self.remembered(key, &engines))
        {
            return Ok(chosen);
        }
        let mut candidates = Vec::new();
        let mut runners = Vec::new();
        for engine in engines {
            match self.load(&engine) {
                Ok(loaded) => runners.push(Runner { engine, loaded }),
                Err(reason) => candidates.push(failed(engine.name(), reason)),
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

    fn able(&self) -> Result<Vec<Arc<dyn Engine>>, String> {
        let named = self.sidecar.engine.name();
        let able: Vec<_> = self
            .engines
            .iter()
            .filter(|engine| named.is_none_or(|name| name == engine.name()))
            .filter(|engine| engine.accepts(self.source))
            .cloned()
            .collect();
        if !able.is_empty() {
            return Ok(able);
        }
        let backend = &self.source.backend;
        Err(match named {
            Some(name) => format!("engine `{name}` does not serve backend `{backend}`"),
            None => no_backend(backend),
        })
    }

    fn load(&self, engine: &Arc<dyn Engine>) -> Result<Arc<dyn Loaded>, String> {
        let _loading = self.tools.quiet.read();
        let load = || engine.load(self.source, self.options);
        // A model that makes an engine panic is a model that does not load.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(load)) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("engine `{}` panicked while loading", engine.name())),
        }
    }

    /// The engine chosen at an earlier start, if it still loads and runs.
    fn remembered(&self, key: &str, engines: &[Arc<dyn Engine>]) -> Option<Chosen> {
        let remembered = self.tools.cache.as_ref()?.read(key)?;
        let engine = engines
            .iter()
            .find(|engine| engine.name() == remembered.engine)?;
        let proved = self.load(engine).and_then(|loaded| {
            let _loading = self.tools.quiet.read();
            let runner = Runner {
                engine: Arc::clone(engine),
                loaded,
            };
            let lane = measure::prove(self, &runner)?;
            Ok((runner.loaded, lane))
        });
        match proved {
            Ok((loaded, lane)) => Some(Chosen {
                loaded,
                lane: Some(lane),
                engine: engine.name(),
                version: engine.version(),
                candidates: remembered.candidates,
            }),
            Err(reason) => {
                tracing::warn!(
                    model = self.source.model,
                    engine = engine.name(),
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

fn failed(engine: &str, verdict: String) -> EngineCandidate {
    EngineCandidate {
        engine: engine.to_owned(),
        median_ms: None,
        max_difference: None,
        verdict,
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
