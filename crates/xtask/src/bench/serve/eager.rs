//! PyTorch in eager mode behind FastAPI, which many a model is served with; left out where it does not install.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::wire::{Doors, Question, Wire};
use crate::bench::load::{self, Burst};
use crate::bench::{Bench, free_port};
use crate::http::Http;
use crate::process::Running;
use crate::setup::{self, Install};
use crate::workspace::root;

const PACKAGES: &[&str] = &[
    "torch==2.13.0",
    "torchvision==0.28.0",
    "transformers==5.23.0",
    "numpy==2.4.6",
    "fastapi==0.165.0",
    "uvicorn==0.54.0",
];

/// What `bench/torch_eager.py` has the layers of.
const MODELS: &[&str] = &["all-minilm-l6-v2", "resnet50-light"];

/// PyTorch imports for seconds, from a cold disk for many.
const START_TIME_MAX: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Eager {
    doors: Doors,
    running: Running,
}

impl Eager {
    /// As many calls at a time as kapok has lanes, one thread each.
    pub(super) fn start(bench: &Bench<'_>, lanes: usize) -> Result<Self> {
        let python = setup::venv(
            &bench.store.dir().join("bench-torch"),
            &[Install::packages(PACKAGES)],
        )?;
        let port = free_port()?;
        let http = || Http::new(&format!("127.0.0.1:{port}"));
        let doors = Doors {
            rest: http(),
            grpc: http(),
        };
        let mut command = Command::new(python);
        command
            .arg(root().join("bench/torch_eager.py"))
            .args([port.to_string(), lanes.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut running = Running::start("torch_eager.py", &mut command)?;
        running.wait_for("ready server", START_TIME_MAX, || {
            let reply = doors.rest.get("/v2/health/ready").ok()?;
            (reply.status == 200).then_some(())
        })?;
        Ok(Self { doors, running })
    }

    pub(super) fn has(model: &str) -> bool {
        MODELS.contains(&model)
    }

    pub(super) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Its weights are its own, so only the size of its answer can be right or wrong.
    pub(super) fn verify(
        &self,
        question: &Question,
        expected: &[f32],
        scratch: &Path,
    ) -> Result<()> {
        let request = question.request(Wire::Binary)?;
        let answer = request.ask(&self.doors, scratch)?;
        ensure!(
            answer.len() == expected.len(),
            "`{}`: {} numbers from PyTorch, the engine alone has {}",
            question.model,
            answer.len(),
            expected.len()
        );
        Ok(())
    }

    pub(super) fn burst(
        &self,
        question: &Question,
        callers: u32,
        (length, scratch): (Duration, &Path),
    ) -> Result<Burst> {
        let request = question.request(Wire::Binary)?;
        load::wrk(scratch, &request.post(&self.doors), callers, length)
    }
}
