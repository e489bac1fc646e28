//! Processes that kapok starts: an `Upstream` with a `process` is started, asked for its health, restarted when it ends,
//! and stopped with everything that it started.
//!
//! ```text
//! start ─► starting ──200──► ready ──3 failures──► unwell ──200──► ready
//!            │                 └──────── exit ────────┘
//!            └─ exit, or no 200 within the start timeout ─► wait (backoff) ─► start
//! ```

mod health;
mod output;
mod process;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Clock, Tasks};
use bytes::Bytes;
use http::Request;
use protocol::resource::{ProcessSpec, UpstreamSpec};

use crate::http::{Endpoint, HttpError};
use health::{Change, Health};
use process::{Guard, Process};

/// What a managed upstream tells: its name, and why it is not ready, if it is not.
pub(crate) type Report = Arc<dyn Fn(&str, Result<(), &str>) + Send + Sync>;

/// How often things are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between probes of a process that is not ready yet: llama.cpp with a small model is ready in half a second.
    starting: Duration,
    /// Between probes of a ready process.
    ready: Duration,
    /// Longest wait for one probe's answer.
    probe_timeout: Duration,
    /// First and longest wait before another start.
    restart: (Duration, Duration),
    /// After so long a time in health the next wait is short again.
    healthy: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            starting: Duration::from_millis(100),
            ready: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(2),
            restart: (Duration::from_millis(100), Duration::from_secs(30)),
            healthy: Duration::from_secs(60),
        }
    }
}

/// One process and its upkeep.
pub(crate) struct Managed {
    name: String,
    endpoint: Endpoint,
    spec: ProcessSpec,
    pace: Pace,
    guard: Guard,
    tasks: Tasks,
    clock: Clock,
    report: Report,
}

impl fmt::Debug for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Managed")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Why a process is no longer watched.
enum Ended {
    /// The node stops, and the process has been stopped.
    Stopping,
    /// It is gone, and this is what is known of the reason.
    Gone { reason: String, healthy: Duration },
}

impl Managed {
    /// None when the upstream names no process.
    pub(crate) fn new(
        name: &str,
        upstream: &UpstreamSpec,
        report: Report,
        tasks: Tasks,
        clock: Clock,
    ) -> Result<Option<Self>, HttpError> {
        let Some(spec) = upstream.process.clone() else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: name.to_owned(),
            endpoint: Endpoint::parse(&upstream.url)?,
            spec,
            pace: Pace::default(),
            guard: Guard::default(),
            tasks,
            clock,
            report,
        }))
    }

    /// Keeps the process running until the tasks are asked to stop.
    pub(crate) async fn run(self) {
        let (first, longest) = self.pace.restart;
        let seed = u64::from(std::process::id());
        let mut backoff = Backoff::new(first, longest, seed);
        loop {
            let (reason, healthy) = match self.once().await {
                Ended::Stopping => return,
                Ended::Gone { reason, healthy } => (reason, healthy),
            };
            if healthy >= self.pace.healthy {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            (self.report)(&self.name, Err(&reason));
            tracing::warn!(
                upstream = self.name,
                reason,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "managed process is not running; starting it again after a wait"
            );
            tokio::select! {
                () = self.tasks.stopped() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One life of the process.
    async fn once(&self) -> Ended {
        if self.taken().await {
            return Ended::Gone {
                reason: format!(
                    "another program already listens at {}; stop it, or change the upstream's url and command",
                    self.endpoint.address()
                ),
                healthy: Duration::ZERO,
            };
        }
        match Process::start(&self.name, &self.spec, self.guard) {
            Ok(process) => {
                tracing::info!(
                    upstream = self.name,
                    pid = process.pid(),
                    "managed process started"
                );
                self.watch(process).await
            }
            Err(reason) => Ended::Gone {
                reason,
                healthy: Duration::ZERO,
            },
        }
    }

    /// A process left over from another life would answer our probes in the new one's name.
    async fn taken(&self) -> bool {
        let probe = self.endpoint.connect();
        matches!(
            tokio::time::timeout(self.pace.probe_timeout, probe).await,
            Ok(Ok(_stream))
        )
    }

    async fn watch(&self, mut process: Process) -> Ended {
        let patience = Duration::from_millis(self.spec.start_timeout_ms);
        let mut health = Health::new(self.clock.now(), patience);
        loop {
            // A dropped probe is made again; what the process says and how it ends survives being dropped.
            let answer = tokio::select! {
                reason = process.exited() => {
                    let healthy = health.ready_for(self.clock.now());
                    return Ended::Gone { reason, healthy };
                }
                () = self.tasks.stopped() => {
                    process.stop(self.stop_timeout()).await;
                    tracing::info!(upstream = self.name, "managed process stopped");
                    return Ended::Stopping;
                }
                answer = self.next_probe(health.ready()) => answer,
            };
            match health.take(answer, self.clock.now()) {
                Change::None => {}
                Change::Ready { after } => {
                    (self.report)(&self.name, Ok(()));
                    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(upstream = self.name, after_ms, "managed process is ready");
                }
                Change::Unwell { reason } => {
                    (self.report)(&self.name, Err(&reason));
                    tracing::warn!(upstream = self.name, reason, "managed process is unwell");
                }
                Change::GivenUp { reason } => {
                    process.stop(self.stop_timeout()).await;
                    let healthy = Duration::ZERO;
                    return Ended::Gone { reason, healthy };
                }
            }
        }
    }

    fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.spec.stop_timeout_ms)
    }

    /// Waits its turn, then asks once.
    async fn next_probe(&self, ready: bool) -> Result<(), String> {
        let interval = if ready {
            self.pace.ready
        } else {
            self.pace.starting
        };
        tokio::time::sleep(interval).await;
        let path = &self.spec.ready_path;
        let ask = async {
            let request = Request::get(path.as_str())
                .body(Bytes::new())
                .map_err(|error| format!("readyPath `{path}` cannot be asked for: {error}"))?;
            let response = self
                .endpoint
                .send(&self.tasks, request)
                .await
                .map_err(|error| base::chain(&error))?;
            match response.status() {
                http::StatusCode::OK => Ok(()),
                other => Err(format!("GET {path} answers {}", other.as_u16())),
            }
        };
        tokio::time::timeout(self.pace.probe_timeout, ask)
            .await
            .unwrap_or_else(|_elapsed| Err(format!("GET {path} does not answer")))
    }
}

#[cfg(test)]
mod tests;
