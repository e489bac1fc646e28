//! Engines, models, and what the demo's language model needs.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Check, Verdict};
use crate::config::Environment;

pub(super) fn checks(environment: &Environment) -> Vec<Check> {
    let mut checks = vec![cache(environment)];
    checks.extend(python(environment));
    checks
}

fn cache(environment: &Environment) -> Check {
    let Some(folder) = &environment.cache else {
        return Check::new("models", Verdict::Warn, "no cache folder: HOME is not set")
            .fix("set HOME or XDG_CACHE_HOME");
    };
    let repository = folder.join("models");
    let models = entries(&repository).filter(|path| path.is_dir()).count();
    if models == 0 {
        return Check::new(
            "models",
            Verdict::Missing,
            format!("none in {}", repository.display()),
        )
        .fix("cargo xtask fetch, or point --model-repo at a folder in Triton's layout");
    }
    let found = format!("{models} in {}", repository.display());
    Check::new("models", Verdict::Ok, found)
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// The demo's llama.cpp server is a Python package.
fn python(environment: &Environment) -> Vec<Check> {
    let Some(python) = environment.program("python3") else {
        return vec![Check::new("python3", Verdict::Missing, "not on PATH").fix(
            "apt-get install python3 python3-venv (only the demo's language model needs it)",
        )];
    };
    let found = python.display().to_string();
    vec![Check::new("python3", Verdict::Ok, found)]
}
