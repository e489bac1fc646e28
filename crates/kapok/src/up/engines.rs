//! The engines of this machine.

use std::sync::Arc;

use onnx::{OrtEngine, RtenEngine, Search};
use runtime::Builtin;
use runtime::engine::Engine;

use crate::config::{Config, Environment};

/// The most complete first: it is the reference that others are compared with.
pub(super) fn find(config: &Config, environment: &Environment) -> Vec<Arc<dyn Engine>> {
    let mut engines: Vec<Arc<dyn Engine>> =
        vec![Arc::new(RtenEngine::default()), Arc::new(Builtin)];
    // Loading the library costs 30 MB and tens of milliseconds: not for a node that only relays.
    if config.node.model_repositories.is_empty() {
        return engines;
    }
    match OrtEngine::find(&search(environment)) {
        Ok(engine) => {
            let library = engine.library().display().to_string();
            tracing::info!(version = engine.version(), library, "found ONNX Runtime");
            engines.insert(0, Arc::new(engine));
        }
        Err(error) => tracing::info!(
            reason = base::chain(&error),
            "without ONNX Runtime: models run on rten, or are refused if it cannot run them"
        ),
    }
    engines
}

/// Where this process looks for ONNX Runtime.
pub(crate) fn search(environment: &Environment) -> Search {
    Search {
        explicit: environment.ort_dylib.clone(),
        cache: environment.cache.clone(),
        threads: base::core_budget().get(),
        ..Search::default()
    }
}
