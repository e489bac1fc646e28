//! The engines of this machine.

use std::path::PathBuf;
use std::sync::Arc;

use isolation::Isolation;
use native::NodeEngine;
use onnx::{OpenVinoEngine, OrtEngine, Processor, RtenEngine, Search};
use runtime::engine::{Engine, Source};
use runtime::{Described, Engines};

use super::gpus::Gpus;
use crate::config::Environment;

/// Built-in backends as they are, all others so that a model can have a process of its own.
pub(super) fn find(environment: &Environment, gpus: &Gpus) -> Engines {
    let (environment, gpus) = (environment.clone(), gpus.clone());
    let isolation = isolation(std::env::current_exe());
    Engines::new(move || dressed(all(&environment), isolation.as_ref(), &gpus))
}

fn isolation(own_file: std::io::Result<PathBuf>) -> Option<Isolation> {
    match own_file {
        Ok(program) => {
            let command = [program.into_os_string(), crate::engine_process::NAME.into()];
            Some(Isolation::new(command))
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "kapok does not know its own file: no model can have a process of its own"
            );
            None
        }
    }
}

/// Each with a budget of device memory, and where it can be with processes of its own.
fn dressed(
    engines: Vec<Arc<dyn Engine>>,
    isolation: Option<&Isolation>,
    gpus: &Gpus,
) -> Vec<Arc<dyn Engine>> {
    let dress = |engine: Arc<dyn Engine>| match isolation {
        Some(isolation) => gpus.budgeted(isolation.around(engine)),
        None => gpus.budgeted(engine),
    };
    engines.into_iter().map(dress).collect()
}

/// The engine of this name, for a process that runs one model: no other library is loaded.
pub(crate) fn one(name: &str, environment: &Environment) -> Option<Arc<dyn Engine>> {
    match name {
        "rten" => Some(Arc::new(RtenEngine::default())),
        "node" => Some(Arc::new(NodeEngine)),
        "openvino" => openvino(environment),
        "onnxruntime" => onnx_runtime(environment),
        _ => None,
    }
}

/// Every engine that runs code of others. The most complete comes first: it is the reference that the rest are compared
/// with.
pub(crate) fn all(environment: &Environment) -> Vec<Arc<dyn Engine>> {
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    engines.extend(onnx_runtime(environment));
    engines.extend(openvino(environment));
    engines.push(Arc::new(RtenEngine::default()));
    engines.push(Arc::new(NodeEngine));
    engines
}

fn onnx_runtime(environment: &Environment) -> Option<Arc<dyn Engine>> {
    match OrtEngine::find(&search(environment)) {
        Ok(engine) => {
            let library = engine.library().display().to_string();
            tracing::info!(version = engine.version(), library, "found ONNX Runtime");
            Some(Arc::new(engine))
        }
        Err(error) => {
            tracing::info!(
                reason = base::chain(&error),
                "without ONNX Runtime: models run on rten, or are refused if it cannot run them"
            );
            None
        }
    }
}

fn openvino(environment: &Environment) -> Option<Arc<dyn Engine>> {
    match OpenVinoEngine::find(&openvino_search(environment), &Processor::here()) {
        Ok(engine) => {
            let library = engine.library().display().to_string();
            tracing::info!(version = engine.version(), library, "found OpenVINO");
            Some(Arc::new(engine))
        }
        Err(error) => {
            tracing::info!(reason = base::chain(&error), "without OpenVINO");
            None
        }
    }
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

/// Where this process looks for OpenVINO.
pub(crate) fn openvino_search(environment: &Environment) -> Search {
    let mut search = Search {
        explicit: environment.openvino_dylib.clone(),
        ..search(environment)
    };
    // Where Intel's own packages put it.
    search
        .system
        .push("/opt/intel/openvino/runtime/lib/intel64".into());
    search
}

/// The inputs and outputs of an ONNX file, read without loading it.
pub(crate) fn describe(source: &Source) -> Described {
    onnx::graph::describe(&source.path)
        .map_err(|error| error.to_string())?
        .specs(&source.inputs)
}

#[cfg(test)]
mod tests {
    use telemetry::metrics::Registry;

    use super::*;

    #[test]
    fn device_memory_is_budgeted_whether_or_not_models_can_have_processes() {
        let gpus = Gpus::watch(&Registry::new()).expect("a thread");
        let unknown = || Err(std::io::ErrorKind::NotFound.into());
        for own_file in [Ok(PathBuf::from("/bin/kapok")), unknown()] {
            let isolation = isolation(own_file);
            let engines = dressed(vec![Arc::new(NodeEngine)], isolation.as_ref(), &gpus);
            let shown = format!("{engines:?}");
            assert!(shown.contains("Budgeted"), "{shown}");
            assert_eq!(shown.contains("Isolat"), isolation.is_some(), "{shown}");
        }
    }

    #[test]
    fn a_models_own_process_knows_every_engine_of_this_one() {
        let environment = Environment::default();
        for engine in all(&environment) {
            let one = one(engine.name(), &environment);
            assert_eq!(one.map(|one| one.name()), Some(engine.name()));
        }
        assert!(one("builtin", &environment).is_none());
    }
}
