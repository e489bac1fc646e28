//! What the demo found: a table as it happens, or one JSON document at the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::Format;
use crate::http::{Reply, Stages};

pub(super) struct Report {
    format: Format,
    versions: Map<String, Value>,
    endpoint: String,
    steps: Vec<(&'static str, Step)>,
    error: Option<String>,
}

/// One request, or several of a kind.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) ok: bool,
    /// What came back, for programs.
    pub(super) result: Value,
    /// What came back, for people: one line each.
    pub(super) lines: Vec<String>,
    pub(super) took: Duration,
    pub(super) stages: Stages,
}

impl Step {
    /// A step of one request that went well if `ok`.
    pub(super) fn of(reply: &Reply, ok: bool, result: Value, lines: Vec<String>) -> Result<Self> {
        Ok(Self {
            ok,
            result,
            lines,
            took: reply.took,
            stages: reply.stages()?,
        })
    }

    fn failed(error: &anyhow::Error) -> Self {
        let text = format!("{error:#}");
        Self {
            ok: false,
            result: json!({ "error": text }),
            lines: vec![text],
            took: Duration::ZERO,
            stages: Vec::new(),
        }
    }
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            versions: Map::new(),
            endpoint: String::new(),
            steps: Vec::new(),
            error: None,
        }
    }

    pub(super) fn versions(&mut self, versions: Vec<(&'static str, String)>) {
        for (name, version) in versions {
            self.table(format_args!("{name:14} {version}"));
            self.versions.insert(name.to_owned(), version.into());
        }
    }

    pub(super) fn endpoint(&mut self, url: &str) {
        self.table(format_args!("{:14} {url}\n", "endpoint"));
        url.clone_into(&mut self.endpoint);
    }

    pub(super) fn step(&mut self, name: &'static str, ask: impl FnOnce() -> Result<Step>) {
        let step = ask().unwrap_or_else(|error| Step::failed(&error));
        let mark = if step.ok { "ok" } else { "FAILED" };
        let millis = step.took.as_secs_f64() * 1e3;
        self.table(format_args!(
            "{name:14} {mark:6} {millis:9.2} ms at the client"
        ));
        if !step.stages.is_empty() {
            let stages: Vec<_> = step
                .stages
                .iter()
                .map(|(stage, millis)| format!("{stage} {millis:.3}"))
                .collect();
            self.table(format_args!("{:22}{}", "", stages.join(" · ")));
        }
        for line in &step.lines {
            self.table(format_args!("{:22}{line}", ""));
        }
        self.table(format_args!(""));
        self.steps.push((name, step));
    }

    fn table(&self, line: std::fmt::Arguments<'_>) {
        if self.format == Format::Table {
            println!("{line}");
        }
    }

    pub(super) fn fail(&mut self, error: &str) {
        self.error = Some(error.to_owned());
    }

    /// Fails when a step did.
    pub(super) fn verdict(&self) -> Result<()> {
        let failed: Vec<_> = self
            .steps
            .iter()
            .filter(|(_, step)| !step.ok)
            .map(|(name, _)| *name)
            .collect();
        ensure!(failed.is_empty(), "not as expected: {}", failed.join(", "));
        Ok(())
    }

    pub(super) fn invite(&self, url: &str) {
        eprintln!(
            "serving on {url} until Ctrl-C; try:\n  curl -sN {url}/v1/chat/completions -H 'content-type: application/json' \\\n    \
             -d '{{\"model\": \"{}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"Name three trees.\"}}]}}'",
            super::CHAT_MODEL
        );
    }

    /// The JSON document, when that was asked for.
    pub(super) fn finish(&self) -> Result<()> {
        if self.format == Format::Table {
            return Ok(());
        }
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|(name, step)| {
                let timing: Map<String, Value> = step
                    .stages
                    .iter()
                    .map(|(stage, millis)| (stage.clone(), (*millis).into()))
                    .collect();
                json!({
                    "name": name,
                    "ok": step.ok,
                    "result": step.result,
                    "client_ms": step.took.as_secs_f64() * 1e3,
                    "server_timing": timing,
                })
            })
            .collect();
        let document = json!({
            "ok": self.error.is_none() && self.verdict().is_ok(),
            "error": self.error,
            "versions": self.versions,
            "endpoint": self.endpoint,
            "steps": steps,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        Ok(())
    }
}
