//! What the demo starts: one kapok, which itself starts the llama.cpp server.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{CHAT_MODEL, Options, Parts};
use crate::http::Http;
use crate::process::Running;
use crate::workspace;

/// Reading the configuration and binding the ports.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Loading with two engines each and comparing them takes seconds per model the first time, on a slow machine.
const READY_TIME_MAX: Duration = Duration::from_secs(300);

pub(super) struct Server {
    running: Running,
    public: Http,
    admin: Http,
    log: PathBuf,
}

impl Server {
    pub(super) fn start(parts: &Parts, options: &Options) -> Result<Self> {
        let config = parts.scratch.join("kapok.yaml");
        std::fs::write(&config, configuration(parts)?)?;
        let (listen, admin) = addresses(options);
        let log = parts.scratch.join("kapok.log");
        let out = parts.scratch.join("kapok.out");
        eprintln!("kapok up --config {}", config.display());
        let mut command = Command::new(&parts.binary);
        command
            .args(["up", "--output", "json", "--config"])
            .arg(&config)
            .args([
                "--listen",
                &listen.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .env("ORT_DYLIB_PATH", &parts.ort)
            .env("KAPOK_CACHE", parts.store.dir())
            .stdout(File::create(&out)?)
            .stderr(File::create(&log)?);
        let mut running = Running::start("kapok", &mut command)?;
        let (public, admin) = await_ready(&mut running, &out).with_context(|| tail(&log))?;
        Ok(Self {
            running,
            public,
            admin,
            log,
        })
    }

    /// The public endpoint.
    pub(super) fn http(&self) -> &Http {
        &self.public
    }

    pub(super) fn admin(&self) -> &Http {
        &self.admin
    }

    /// Fails when kapok is no longer there.
    pub(super) fn check(&mut self) -> Result<()> {
        self.running.check().with_context(|| tail(&self.log))
    }
}

/// With `--once` the demo is a test, and must not mind what else listens on this machine.
fn addresses(options: &Options) -> (SocketAddr, SocketAddr) {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (public, admin) = if options.once { (0, 0) } else { (8000, 8080) };
    (
        options.listen.unwrap_or_else(|| local(public)),
        local(admin),
    )
}

fn await_ready(running: &mut Running, out: &Path) -> Result<(Http, Http)> {
    // kapok says where it listens in its first line, before any model is loaded.
    let said: Value = running.wait_for("listening address", START_TIME_MAX, || {
        let text = std::fs::read_to_string(out).ok()?;
        text.lines()
            .find_map(|line| serde_json::from_str(line).ok())
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
    // The models in the process are ready; the language model's server may still load its own.
    running.wait_for("language model", READY_TIME_MAX, || {
        let question = json!({
            "model": CHAT_MODEL,
            "max_tokens": 1,
            "messages": [{"role": "user", "content": "Hi"}],
        });
        let reply = public.post_json("/v1/chat/completions", &question).ok()?;
        (reply.status == 200).then_some(())
    })?;
    Ok((public, admin))
}

/// The resources of the demo. A JSON string is a YAML string, whatever a path contains.
fn configuration(parts: &Parts) -> Result<String> {
    let quoted = |text: &str| Value::from(text).to_string();
    // Taken and given back: llama.cpp must be told a number, and kapok where to find it.
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let launcher = workspace::root().join("demo/llama_server.py");
    let command = [
        parts.python.display().to_string(),
        launcher.display().to_string(),
        "--model".to_owned(),
        parts.gguf.display().to_string(),
        "--alias".to_owned(),
        CHAT_MODEL.to_owned(),
        "--port".to_owned(),
        port.to_string(),
        "--threads".to_owned(),
        "1".to_owned(),
    ];
    let command: Vec<_> = command.iter().map(|part| quoted(part)).collect();
    Ok(format!(
        "apiVersion: kapok.dev/v1alpha1
kind: Node
metadata:
  name: demo
spec:
  modelRepositories: [{}]
---
# Started, watched and stopped by kapok.
apiVersion: kapok.dev/v1alpha1
kind: Upstream
metadata:
  name: llm
spec:
  url: http://127.0.0.1:{port}
  kind: openai
  models: [{CHAT_MODEL}]
  process:
    command: [{}]
",
        quoted(&parts.repository.display().to_string()),
        command.join(", "),
    ))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default();
    format!("the end of {}:\n{}", log.display(), last.join("\n"))
}
