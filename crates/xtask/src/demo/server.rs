//! What the demo starts: one kapok, which itself starts the llama.cpp server.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{CHAT_MODEL, Options, Parts};
use crate::kapok::Kapok;
use crate::workspace;

/// A cold disk and a busy machine; the model itself loads in half a second.
const CHAT_READY_TIME_MAX: Duration = Duration::from_secs(120);

pub(super) fn start(parts: &Parts, options: &Options) -> Result<Kapok> {
    let config = parts.scratch.join("kapok.yaml");
    std::fs::write(&config, configuration(parts)?)?;
    let (listen, admin) = addresses(options);
    eprintln!("kapok up --config {}", config.display());
    let mut command = Command::new(&parts.binary);
    command
        .args(["up", "--config"])
        .arg(&config)
        .args(["--listen", &listen.to_string()])
        .args(["--admin", &admin.to_string()])
        .env("ORT_DYLIB_PATH", &parts.ort)
        .env("KAPOK_CACHE", parts.store.dir());
    let mut kapok = Kapok::start(&mut command, &parts.scratch)?;
    // The models in the process are ready; the language model's server may still load its own.
    kapok.wait_for("language model", CHAT_READY_TIME_MAX, |public| {
        let question = json!({
            "model": CHAT_MODEL,
            "max_tokens": 1,
            "messages": [{"role": "user", "content": "Hi"}],
        });
        let reply = public.post_json("/v1/chat/completions", &question).ok()?;
        (reply.status == 200).then_some(())
    })?;
    Ok(kapok)
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
