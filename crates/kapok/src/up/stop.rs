//! From ready to the end.

use std::time::Duration;

use base::Deadline;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::node::Node;
use super::ports::Kept;
use super::register::Registered;
use super::upgrade::Program;
use super::{director, notify, upgrade};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};

/// What tasks get that are asked to end after everything else has.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// What the end has to do with.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub(super) node: &'a Node,
    pub(super) director: &'a director::Handle,
    pub(super) environment: &'a Environment,
    pub(super) program: Program,
    pub(super) kept: Kept,
    pub(super) registered: Option<Registered>,
}

/// Why the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Asked,
    Failed,
    /// Another process serves.
    Replaced,
}

impl End<'_> {
    /// Serves until there is a reason not to, then stops in order; a second signal stops at once.
    pub(super) async fn come(
        self,
        mut signals: Signals,
        ready: impl Future<Output = Outcome>,
    ) -> Outcome {
        let announce = async {
            match ready.await {
                Ok(()) => std::future::pending().await,
                Err(failure) => failure,
            }
        };
        let why = tokio::select! {
            failure = announce => Err(failure),
            why = self.reason(&mut signals) => Ok(why),
        };
        let Self {
            node,
            director,
            environment,
            kept,
            registered,
            ..
        } = self;
        // From now on the ports are the listeners' alone, and close with them.
        drop(kept);
        let why = match why {
            Ok(why) => why,
            Err(failure) => {
                // Nobody was told that it serves; what came nevertheless is answered.
                drain(node, director, Why::Failed).await;
                return Err(failure);
            }
        };
        let drained = tokio::select! {
            drained = async {
                if why == Why::Asked {
                    notify::tell(environment, notify::STOPPING);
                    node.gateway.leave();
                }
                match registered {
                    Some(registered) if why != Why::Replaced => registered.leave().await,
                    // The process that took over writes the entry anew; taking it away could come after that.
                    registered => drop(registered),
                }
                if why == Why::Asked {
                    linger(director).await;
                }
                drain(node, director, why).await
            } => drained,
            name = signals.next() => {
                tracing::info!(signal = name, "stopping at once");
                return Err(Failure::failed("stopped before every request was answered"));
            }
        };
        ended(drained, why, director)
    }

    /// Until there is one. An upgrade that fails is none.
    async fn reason(&self, signals: &mut Signals) -> Why {
        loop {
            tokio::select! {
                asked = signals.any() => if let Some(name) = asked {
                    self.asked_by(name);
                    return Why::Asked;
                },
                () = self.node.tasks.stopped() => {
                    tracing::error!("stopping: a part that nothing works without has failed");
                    return Why::Failed;
                }
            }
            // Cancel-safe: an upgrade that is given up ends with the new process, which sees its line close.
            let handed = tokio::select! {
                handed = upgrade::hand_over(&self.program, &self.kept, self.director) => handed,
                name = signals.next() => {
                    tracing::info!(signal = name, "stopping, and the upgrade with it");
                    return Why::Asked;
                }
            };
            match handed {
                Ok(pid) => {
                    self.replaced_by(pid);
                    return Why::Replaced;
                }
                Err(error) => tracing::error!(
                    error = base::chain(&error),
                    "not upgraded: this process goes on serving"
                ),
            }
        }
    }

    fn asked_by(&self, signal: &str) {
        let limit_ms = millis(self.director.settings().drain_timeout);
        tracing::info!(
            signal,
            limit_ms,
            "stopping: requests in flight may finish; a second signal ends them"
        );
    }

    fn replaced_by(&self, pid: u32) {
        notify::tell(self.environment, &notify::main_pid(pid));
        tracing::info!(
            pid,
            "upgraded: the new process serves; this one answers what it has begun, and ends"
        );
    }
}

fn ended(drained: bool, why: Why, director: &director::Handle) -> Outcome {
    if why == Why::Failed {
        return Err(Failure::failed("a part of the node failed").hint("see the log lines above"));
    }
    if !drained {
        return Err(Failure::failed(format!(
            "requests were still in flight after {} ms and have been cut off",
            millis(patience(why, director))
        ))
        .hint("--set node.drainTimeoutMs=… gives them longer"));
    }
    tracing::info!("stopped");
    Ok(())
}

/// The node has said that it is not ready: it serves on until whoever sends requests has had time to see it.
async fn linger(director: &director::Handle) {
    let delay = director.settings().drain_delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// Requests first, then the processes that answered them, then the rest. True if no request was cut off.
async fn drain(node: &Node, director: &director::Handle, why: Why) -> bool {
    let settings = director.settings();
    let deadline = Deadline::after(node.clock.now(), patience(why, director));
    let drained = node.gateway.drain(deadline).await;
    node.processes
        .drain(settings.stop_timeout + LAST_MOMENTS)
        .await;
    node.tasks.drain(LAST_MOMENTS).await;
    drained
}

/// Nobody waits for the end of a process that has been replaced, so its requests get what time they have.
fn patience(why: Why, director: &director::Handle) -> Duration {
    let settings = director.settings();
    match why {
        Why::Asked | Why::Failed => settings.drain_timeout,
        Why::Replaced => settings.drain_timeout.max(settings.request_timeout),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// SIGTERM from service managers, SIGINT from a terminal; SIGUSR2 asks for an upgrade.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    pub(super) fn catch() -> Outcome<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// None means an upgrade. Cancel-safe, as is [`Signals::next`].
    async fn any(&mut self) -> Option<&'static str> {
        tokio::select! {
            _ = self.terminate.recv() => Some("SIGTERM"),
            _ = self.interrupt.recv() => Some("SIGINT"),
            _ = self.upgrade.recv() => None,
        }
    }

    /// Cancel-safe: a signal that comes while nobody waits is kept.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
