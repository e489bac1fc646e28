//! Processes that kapok starts: an `Upstream` with a `process` is started, asked for its health, restarted when it ends,
//! and stopped with everything that it started. Between kapok and the process stands a keeper (see the room `process`), so
//! that the process can be handed to the kapok that takes this one's place.
//!
//! ```text
//! start ─► starting ──200──► ready ──3 failures──► unwell ──200──► ready
//!            │                 └──────── exit ────────┘
//!            └─ exit, or no 200 within the start timeout ─► wait (backoff) ─► start
//! ```

mod fleet;
mod health;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Clock, Tasks};
use bytes::Bytes;
use http::Request;
use protocol::resource::{ProcessSpec, UpstreamSpec};

use discovery::http::{Endpoint, HttpError};
use health::{Change, Health};
use process::{Keeper, Launch, Sink};
use tokio::sync::watch;

pub(crate) use fleet::{Adopted, Fleet, Wanted};
pub(crate) use process::{Handles, Process};

/// What a managed upstream tells: its name and how it is.
pub(crate) type Report = Arc<dyn Fn(&str, State<'_>) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State<'a> {
    Ready,
    /// On its way: it has been started, or will be at once.
    Starting(&'a str),
    /// It was there and does not answer, or it could not be started at all.
    Down(&'a str),
}

/// What is wanted of a managed process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Stop,
    /// Another kapok goes on with it.
    Release,
}

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
    keeper: Keeper,
    tasks: Tasks,
    clock: Clock,
    report: Report,
    wish: watch::Receiver<Wish>,
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
    /// It was not wanted any more, and the process has been stopped.
    Stopping,
    /// It runs, in other hands.
    Released(Box<Adopted>),
    /// It is gone, and this is what is known of the reason.
    Gone { reason: String, healthy: Duration },
}

impl Managed {
    /// None when the upstream names no process.
    pub(crate) fn new(
        name: &str,
        upstream: &UpstreamSpec,
        report: Report,
        clock: Clock,
        (tasks, wish): (Tasks, watch::Receiver<Wish>),
    ) -> Result<Option<Self>, HttpError> {
        let Some(spec) = upstream.process.clone() else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: name.to_owned(),
            endpoint: Endpoint::parse(&upstream.url)?,
            spec,
            pace: Pace::default(),
            keeper: Keeper::default(),
            tasks,
            clock,
            report,
            wish,
        }))
    }

    /// Keeps the process running until it is not wanted any more; begins with one that runs already, if there is one.
    /// Returns the process when it is to go on without this kapok.
    pub(crate) async fn run(mut self, mut running: Option<Adopted>) -> Option<Adopted> {
        let (first, longest) = self.pace.restart;
        let seed = u64::from(std::process::id());
        let mut backoff = Backoff::new(first, longest, seed);
        loop {
            let (reason, healthy) = match self.once(running.take()).await {
                Ended::Stopping => return None,
                Ended::Released(process) => return Some(*process),
                Ended::Gone { reason, healthy } => (reason, healthy),
            };
            if healthy >= self.pace.healthy {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            // One that was in health and ended is back soon; one that never was may never be.
            let state = if healthy > Duration::ZERO {
                State::Starting(&reason)
            } else {
                State::Down(&reason)
            };
            (self.report)(&self.name, state);
            tracing::warn!(
                upstream = self.name,
                reason,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "managed process is not running; starting it again after a wait"
            );
            tokio::select! {
                _wish = unwanted(&self.tasks, &mut self.wish) => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One life of the process, or the rest of it.
    async fn once(&mut self, running: Option<Adopted>) -> Ended {
        let never = |reason| Ended::Gone {
            reason,
            healthy: Duration::ZERO,
        };
        if let Some(Adopted { process, ready }) = running {
            tracing::info!(
                upstream = self.name,
                pid = process.pid(),
                "managed process taken over"
            );
            return self.watch(process, ready).await;
        }
        if self.taken().await {
            return never(format!(
                "another program already listens at {}; stop it, or change the upstream's url and command",
                self.endpoint.address()
            ));
        }
        let launch = Launch {
            command: &self.spec.command,
            env: &self.spec.env,
            hidden: &[crate::config::HANDOVER],
            working_dir: self.spec.working_dir.as_deref(),
            patience: self.stop_timeout(),
            keeper: self.keeper,
            sink: sink(&self.name),
        };
        match Process::start(launch).await {
            Ok(process) => {
                tracing::info!(
                    upstream = self.name,
                    pid = process.pid(),
                    "managed process started"
                );
                (self.report)(&self.name, State::Starting("its process is starting"));
                self.watch(process, false).await
            }
            Err(reason) => never(reason),
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

    async fn watch(&mut self, mut process: Process, ready: bool) -> Ended {
        let patience = Duration::from_millis(self.spec.start_timeout_ms);
        let mut health = Health::new(self.clock.now(), patience);
        if ready && health.take(Ok(()), self.clock.now()) != Change::None {
            (self.report)(&self.name, State::Ready);
        }
        loop {
            let mut wish = self.wish.clone();
            // A dropped probe is made again; what the process says and how it ends survives being dropped.
            let answer = tokio::select! {
                exit = process.exited() => {
                    let reason = exit.to_string();
                    let healthy = health.ready_for(self.clock.now());
                    return Ended::Gone { reason, healthy };
                }
                wish = unwanted(&self.tasks, &mut wish) => {
                    if wish == Wish::Release {
                        let ready = health.ready();
                        return Ended::Released(Box::new(Adopted { process, ready }));
                    }
                    process.stop(self.stop_timeout()).await;
                    tracing::info!(upstream = self.name, "managed process stopped");
                    return Ended::Stopping;
                }
                answer = self.next_probe(health.ready()) => answer,
            };
            match health.take(answer, self.clock.now()) {
                Change::None => {}
                Change::Ready { after } => {
                    (self.report)(&self.name, State::Ready);
                    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(upstream = self.name, after_ms, "managed process is ready");
                }
                Change::Unwell { reason } => {
                    (self.report)(&self.name, State::Down(&reason));
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

/// What a managed process prints is in the log, under its upstream's name.
pub(crate) fn sink(name: &str) -> Sink {
    let name = name.to_owned();
    Sink::Lines(Arc::new(move |line| {
        tracing::info!(target: "upstream", name, "{line}");
    }))
}

/// Resolves when the process is not to run any more in these hands. Cancel-safe.
async fn unwanted(tasks: &Tasks, wish: &mut watch::Receiver<Wish>) -> Wish {
    tokio::select! {
        () = tasks.stopped() => Wish::Stop,
        changed = wish.wait_for(|wish| *wish != Wish::Run) => match changed {
            Ok(wish) => *wish,
            // Nobody is left who could want it.
            Err(_closed) => Wish::Stop,
        },
    }
}

#[cfg(test)]
mod tests;
