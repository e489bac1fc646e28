//! `cargo xtask tidy`: the house rules that no compiler checks, each as data.

mod files;
mod laws;
mod rooms;

use anyhow::{Result, ensure};

use crate::workspace;

/// What a rule found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Warning(String),
    Failure(String),
}

/// Checks everything, prints what it found, and fails when a rule is broken.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut findings = rooms::check(&root)?;
    findings.extend(files::check(&root)?);
    findings.extend(laws::check(&root)?);
    let mut failures = 0;
    for finding in &findings {
        match finding {
            Finding::Warning(text) => eprintln!("warning: {text}"),
            Finding::Failure(text) => {
                failures += 1;
                eprintln!("error: {text}");
            }
        }
    }
    ensure!(failures == 0, "{failures} house rules broken");
    eprintln!("tidy: every rule holds");
    Ok(())
}
