//! Says when there is nothing left to wait for, in the same sense as `/health/ready`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use base::Clock;
use protocol::ModelState;
use runtime::Runtime;
use tokio::sync::watch;

use super::ports::Addresses;
use crate::config::Config;

/// What the start still waits for. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// Managed upstreams that have not answered yet.
    silent: Arc<watch::Sender<BTreeSet<String>>>,
    public: Option<SocketAddr>,
    upstreams: usize,
    started: Instant,
}

impl Progress {
    pub(super) fn new(config: &Config, addresses: &Addresses, started: Instant) -> Self {
        let managed = config
            .upstreams()
            .filter(|(_, upstream)| upstream.process.is_some())
            .map(|(name, _)| name.to_owned());
        Self {
            silent: Arc::new(watch::Sender::new(managed.collect())),
            public: addresses.public(),
            upstreams: config.upstreams().count(),
            started,
        }
    }

    /// A managed upstream answers for the first time, or again.
    pub(super) fn answers(&self, name: &str) {
        self.silent.send_if_modified(|silent| silent.remove(name));
    }

    /// Resolves after saying that the node is ready, once.
    pub(super) async fn announce(self, models: &Runtime, clock: Clock) {
        models.loaded().await;
        let mut silent = self.silent.subscribe();
        // The sender lives in self, so this ends by the set becoming empty.
        let _closed = silent.wait_for(BTreeSet::is_empty).await;
        let index = models.index();
        let good = index
            .iter()
            .filter(|entry| entry.state == ModelState::Ready)
            .count();
        let address = self
            .public
            .map_or_else(String::new, |address| format!(" on http://{address}"));
        let took_ms = (clock.now() - self.started).as_millis();
        let counts = format!(
            "({}, {}) in {took_ms} ms",
            count(good, "model"),
            count(self.upstreams, "upstream")
        );
        let bad = models.failed().len();
        if bad > 0 {
            tracing::info!(
                "kapok serves{address} {counts}, without {}: kapok models list",
                count(bad, "model")
            );
        } else {
            tracing::info!("kapok is ready{address} {counts}");
        }
        if index.is_empty() && self.upstreams == 0 {
            tracing::info!(
                "nothing to serve yet: kapok up --model-repo DIR, or --upstream NAME=URL"
            );
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
