//! From ready to the end.

use std::time::Duration;

use base::Deadline;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::node::Node;
use crate::config::Config;
use crate::exit::{Failure, Outcome};

/// What tasks get that are asked to end after everything else has.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// Waits for a signal, then stops in order; a second signal stops at once.
pub(super) async fn until_stopped(
    node: &Node,
    config: &Config,
    mut signals: Signals,
    ready: impl Future<Output = Outcome>,
) -> Outcome {
    let mut failed = false;
    let announce = async {
        match ready.await {
            Ok(()) => std::future::pending().await,
            Err(failure) => failure,
        }
    };
    tokio::select! {
        failure = announce => {
            // Nobody was told that it serves; what came nevertheless is answered.
            drain(node, config).await;
            return Err(failure);
        }
        name = signals.next() => {
            let limit_ms = config.node.drain_timeout_ms;
            tracing::info!(signal = name, limit_ms, "stopping: requests in flight may finish; a second signal ends them");
        }
        () = node.tasks.stopped() => {
            failed = true;
            tracing::error!("stopping: a part that nothing works without has failed");
        }
    }
    let drained = tokio::select! {
        drained = drain(node, config) => drained,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping at once");
            return Err(Failure::failed("stopped before every request was answered"));
        }
    };
    if failed {
        return Err(Failure::failed("a part of the node failed").hint("see the log lines above"));
    }
    if !drained {
        return Err(Failure::failed(format!(
            "requests were still in flight after {} ms and have been cut off",
            config.node.drain_timeout_ms
        ))
        .hint("--set node.drainTimeoutMs=… gives them longer"));
    }
    tracing::info!("stopped");
    Ok(())
}

/// Requests first, then the processes that answered them, then the rest. True if no request was cut off.
async fn drain(node: &Node, config: &Config) -> bool {
    let limit = Duration::from_millis(config.node.drain_timeout_ms);
    let deadline = Deadline::after(node.clock.now(), limit);
    let drained = node.gateway.drain(deadline).await;
    let processes = config
        .upstreams()
        .filter_map(|(_, upstream)| upstream.process.as_ref());
    let patience = processes.map(|process| process.stop_timeout_ms).max();
    let patience = Duration::from_millis(patience.unwrap_or_default());
    node.processes.drain(patience + LAST_MOMENTS).await;
    node.tasks.drain(LAST_MOMENTS).await;
    drained
}

/// SIGTERM from service managers, SIGINT from a terminal.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch() -> Outcome<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancel-safe: a signal that comes while nobody waits is kept.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
