//! What openai-python's own tests need: their source archive, an environment, OpenAI's specification and a mock of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run};
use crate::setup::{self, Install};
use crate::workspace;

/// A mock of any OpenAPI document, from npm; openai-python's own scripts start the same.
const MOCK: &str = "@stdy/cli@0.22.2";

const PROGRAMS: &[setup::Program] = &[("node", "nodejs"), ("npm", "npm")];

/// Makes `<cache>/openai-suite` with `source/`, `venv/` and `node_modules/.bin/steady`, and answers it.
pub(crate) fn prepare(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("openai-suite");
    fs::create_dir_all(&dir)?;
    let requirements = |name: &str| workspace::root().join("crates/e2e/python").join(name);
    let install = Install::file(&requirements("requirements-openai-suite.txt"), &[])?;
    let python = setup::venv(&dir.join("venv"), &[install])?;
    let archive = requirements("requirements-openai-sdist.txt");
    let pins = format!("{}{MOCK}", fs::read_to_string(&archive)?);
    let stamp = dir.join("kapok.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|seen| seen == pins) {
        return Ok(dir);
    }
    sources(&dir, &python, &archive)?;
    setup::debian(PROGRAMS)?;
    run(Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
        .args(["--loglevel", "error", "--prefix"])
        .arg(&dir)
        .arg(MOCK))?;
    fs::write(stamp, pins)?;
    Ok(dir)
}

fn sources(dir: &Path, python: &Path, archive: &Path) -> Result<()> {
    let download = dir.join("download");
    let source = dir.join("source");
    for made in [&download, &source] {
        if made.exists() {
            fs::remove_dir_all(made)?;
        }
        fs::create_dir_all(made)?;
    }
    run(Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--no-deps"])
        .args(["--no-binary", ":all:", "--require-hashes", "--dest"])
        .arg(&download)
        .arg("-r")
        .arg(archive))?;
    let packed = fs::read_dir(&download)?.flatten().next();
    let packed = packed.context("pip brought no archive")?.path();
    output(
        Command::new("tar")
            .args(["--strip-components", "1", "-xzf"])
            .arg(&packed)
            .arg("-C")
            .arg(&source),
    )?;
    fs::remove_dir_all(&download)?;
    Ok(())
}
