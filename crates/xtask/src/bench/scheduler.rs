//! Where requests go and when, in parts that are measured apart: public traces, and mixes that papers describe.
//!
//! Reading order: this file (where the traces are), then one file per part.

pub(super) mod allocation;
pub(super) mod churn;
pub(super) mod explain;
pub(super) mod mig;
pub(super) mod power;
pub(super) mod queue;
pub(super) mod speed;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

use super::Bench;
use crate::process::output;
use crate::workspace::root;

/// Beside the checkout; public, and too large to keep.
const TRACES: &str = "../shared/data/traces";

/// Of one of the public traces.
fn traces(name: &str) -> Result<PathBuf> {
    let folder = root().join(TRACES).join(name);
    ensure!(
        folder.is_dir(),
        "the trace `{name}` is expected in `{}`",
        folder.display()
    );
    Ok(folder)
}

fn simulate(bench: &Bench<'_>, folder: &Path) -> Command {
    let mut command = Command::new(&bench.binary);
    command.args(["simulate", "--output", "json", "--nodes"]);
    command.arg(folder.join("openb_node_list_gpu_node.csv"));
    command
}

fn runs(command: &mut Command) -> Result<Vec<Value>> {
    let document: Value = serde_json::from_str(&output(command)?)?;
    document["runs"]
        .as_array()
        .cloned()
        .context("no runs in the answer")
}

fn lists(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut lists = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("openb_pod_list_") {
            lists.push(path);
        }
    }
    lists.sort();
    Ok(lists)
}

fn unzipped(path: &Path) -> Result<String> {
    let file = fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text)?;
    Ok(text)
}
