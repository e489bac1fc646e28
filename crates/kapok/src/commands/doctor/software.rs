//! Engines, models, and what the demo's language model needs.

use std::fs;
use std::path::{Path, PathBuf};

use onnx::{OpenVinoEngine, OrtEngine, Processor, RtenEngine};
use runtime::engine::Engine as _;

use super::{Check, Verdict};
use crate::config::Environment;
use crate::up::{engine_search, openvino_search};

pub(super) fn checks(environment: &Environment) -> Vec<Check> {
    vec![
        rten(),
        onnx_runtime(environment),
        openvino(environment),
        processor(),
        models(environment),
        python(environment),
        llama(environment),
    ]
}

fn rten() -> Check {
    let found = format!("rten {}, compiled in", RtenEngine::default().version());
    Check::new("pure-Rust engine", Verdict::Ok, found)
}

fn onnx_runtime(environment: &Environment) -> Check {
    match OrtEngine::find(&engine_search(environment)) {
        Ok(engine) => {
            let providers = match engine.providers().as_slice() {
                [] => "CPU only".to_owned(),
                offered => offered.join(", "),
            };
            let library = engine.library().display();
            let found = format!("{} in {library}; providers: {providers}", engine.version());
            Check::new("ONNX Runtime", Verdict::Ok, found)
        }
        Err(error) => Check::new("ONNX Runtime", Verdict::Missing, base::chain(&error)).fix(
            "without it models run on rten, 1.1 to 2.9 times slower, and tabular models not at all: cargo xtask fetch \
             onnxruntime",
        ),
    }
}

fn openvino(environment: &Environment) -> Check {
    match OpenVinoEngine::find(&openvino_search(environment), &Processor::here()) {
        Ok(engine) => {
            let precisions: Vec<_> = engine.precisions().iter().map(|it| it.name()).collect();
            let found = format!(
                "{} in {}; computes {}",
                engine.version(),
                engine.library().display(),
                precisions.join(", ")
            );
            Check::new("OpenVINO", Verdict::Ok, found)
        }
        Err(error) => Check::new("OpenVINO", Verdict::Missing, base::chain(&error)).fix(
            "the fastest on Intel's processors for many models, and the only engine that computes in bf16: cargo xtask \
             fetch openvino (59 MB)",
        ),
    }
}

/// What engines choose their kernels by.
fn processor() -> Check {
    let processor = Processor::here();
    let found = processor.features().join(", ");
    if processor.avx2 || cfg!(not(target_arch = "x86_64")) {
        let found = if found.is_empty() {
            std::env::consts::ARCH.to_owned()
        } else {
            found
        };
        return Check::new("processor", Verdict::Ok, found);
    }
    Check::new("processor", Verdict::Warn, "no AVX2")
        .fix("models run, several times slower: a processor since 2013 has it")
}

fn models(environment: &Environment) -> Check {
    let Some(folder) = &environment.cache else {
        return Check::new("models", Verdict::Warn, "no cache folder: HOME is not set")
            .fix("set HOME, XDG_CACHE_HOME or KAPOK_CACHE");
    };
    let repository = folder.join("models");
    let models = entries(&repository).filter(|path| path.is_dir()).count();
    let place = repository.display();
    if models == 0 {
        return Check::new("models", Verdict::Missing, format!("none in {place}"))
            .fix("cargo xtask fetch, or point --model-repo at a folder in Triton's layout");
    }
    Check::new("models", Verdict::Ok, format!("{models} in {place}"))
}

fn python(environment: &Environment) -> Check {
    match environment.program("python3") {
        Some(python) => Check::new("python3", Verdict::Ok, python.display().to_string()),
        None => Check::new("python3", Verdict::Missing, "not on PATH")
            .fix("only the demo's language model needs it: apt-get install python3 python3-venv"),
    }
}

/// The demo's llama.cpp server is a Python package in an environment of its own.
fn llama(environment: &Environment) -> Check {
    let venv = environment.cache.iter().map(|cache| cache.join("venv/lib"));
    let package = venv
        .flat_map(|lib| entries(&lib))
        .map(|python| python.join("site-packages/xllamacpp"))
        .find(|package| package.is_dir());
    match package {
        Some(package) => Check::new("llama.cpp", Verdict::Ok, package.display().to_string()),
        None => Check::new(
            "llama.cpp",
            Verdict::Missing,
            "package xllamacpp is not installed",
        )
        .fix(
            "cargo xtask demo installs it; any OpenAI-compatible server does: --upstream NAME=URL",
        ),
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}
