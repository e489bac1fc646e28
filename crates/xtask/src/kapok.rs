//! A kapok started by a tool: its two addresses, its log, and its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::http::Http;
use crate::process::Running;

/// Reading the configuration and binding the ports.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Loading with two engines each and comparing them takes seconds per model the first time, on a slow machine.
const READY_TIME_MAX: Duration = Duration::from_secs(300);

pub(crate) struct Kapok {
    running: Running,
    public: Http,
    admin: Http,
    log: PathBuf,
}

impl Kapok {
    /// `kapok up` on free ports, in `scratch`; what it serves is the caller's to add.
    pub(crate) fn up(binary: &Path, scratch: &Path) -> Command {
        let mut command = Command::new(binary);
        command
            .args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .current_dir(scratch);
        command
    }

    /// Runs the command (`kapok up …`) with its output in files under `scratch`, and waits until it is ready.
    pub(crate) fn start(command: &mut Command, scratch: &Path) -> Result<Self> {
        let log = scratch.join("kapok.log");
        let out = scratch.join("kapok.out");
        command
            .args(["--output", "json"])
            .stdout(File::create(&out)?)
            .stderr(File::create(&log)?);
        let mut running = Running::start("kapok", command)?;
        let (public, admin) = await_ready(&mut running, &out).with_context(|| tail(&log))?;
        Ok(Self {
            running,
            public,
            admin,
            log,
        })
    }

    /// The public endpoint.
    pub(crate) fn public(&self) -> &Http {
        &self.public
    }

    pub(crate) fn admin(&self) -> &Http {
        &self.admin
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Fails when kapok is no longer there.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.running.check().with_context(|| tail(&self.log))
    }

    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut(&Http) -> Option<()>,
    ) -> Result<()> {
        self.running
            .wait_for(what, limit, || ready(&self.public))
            .with_context(|| tail(&self.log))
    }
}

fn await_ready(running: &mut Running, out: &Path) -> Result<(Http, Http)> {
    // kapok says where it listens in its first line, before any model is loaded.
    let said: Value = running.wait_for("listening address", START_TIME_MAX, || {
        let text = std::fs::read_to_string(out).ok()?;
        let mut lines = text.lines();
        lines.find_map(|line| serde_json::from_str(line).ok())
    })?;
    let address = |door: &str| {
        said.pointer(&format!("/listening/{door}"))
            .and_then(Value::as_str)
            .map(Http::new)
            .with_context(|| format!("no `{door}` address in {said}"))
    };
    let (public, admin) = (address("public")?, address("admin")?);
    running.wait_for("readiness", READY_TIME_MAX, || {
        let reply = public.get("/health/ready").ok()?;
        (reply.status == 200).then_some(())
    })?;
    Ok((public, admin))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default();
    format!("the end of {}:\n{}", log.display(), last.join("\n"))
}
