use std::time::Duration;

use base::{Backoff, Tasks};
use protocol::resource::{Endpoint, RegisterSpec};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Error;
use crate::etcd::Client;

/// This node's entry in a registry, for as long as it is wanted.
#[derive(Debug)]
pub struct Registration {
    client: Client,
    key: String,
    value: String,
    lease: Duration,
}

/// Keeping alive is done so many times a lease, so that one lost answer costs nothing.
const TIMES_A_LEASE: u32 = 3;

/// For the goodbye: the entry goes by itself when its lease ends.
const GOODBYE: Duration = Duration::from_secs(2);

impl Registration {
    /// `endpoint` is how others reach this node. The key is made of it: a process that takes over the port takes over
    /// the entry, and one that leaves takes away its own lease only.
    pub fn new(spec: &RegisterSpec, endpoint: &Endpoint, tasks: Tasks) -> Self {
        let place = endpoint.url.split("://").last().unwrap_or_default();
        Self {
            client: Client::new(&spec.etcd, tasks),
            key: format!("{}{}", spec.etcd.prefix, place.trim_end_matches('/')),
            value: serde_json::to_string(endpoint).unwrap_or_default(),
            lease: Duration::from_millis(spec.lease_ms),
        }
    }

    /// Writes the entry and keeps it alive, through failures of the registry, until `wanted` is false: then takes it away.
    /// When `wanted` is gone it only stops: somebody else keeps the entry, or its lease ends it. `first` is told when the entry is written for the first time.
    pub async fn keep(mut self, mut wanted: watch::Receiver<bool>, first: impl FnOnce() + Send) {
        let mut lease = None;
        let mut first = Some(first);
        let every = self.lease / TIMES_A_LEASE;
        let mut backoff = Backoff::new(every / 10, every, u64::from(std::process::id()));
        let mut failing = false;
        loop {
            let wait = match self.renew(&mut lease).await {
                Ok(()) => {
                    backoff.reset();
                    if let Some(first) = first.take() {
                        first();
                    }
                    if std::mem::take(&mut failing) {
                        tracing::info!(key = self.key, "this node is registered again");
                    }
                    every
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            key = self.key,
                            error = base::chain(&error),
                            "this node cannot be registered; it serves all the same, and tries again"
                        );
                    }
                    backoff.next_wait()
                }
            };
            // Cancel-safe: a flag and a timer.
            tokio::select! {
                left = wanted.wait_for(|wanted| !wanted) => match left {
                    Ok(_unwanted) => break,
                    Err(_gone) => return,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
        if let Some(lease) = lease {
            let _best_effort = timeout(GOODBYE, self.client.revoke(&lease)).await;
        }
    }

    async fn renew(&mut self, lease: &mut Option<String>) -> Result<(), Error> {
        if let Some(id) = lease
            && self.client.keep_alive(id).await?
        {
            return Ok(());
        }
        // etcd counts in whole seconds.
        let seconds = self.lease.as_secs().max(1);
        let id = self.client.grant(seconds).await?;
        self.client.put(&self.key, &self.value, &id).await?;
        *lease = Some(id);
        Ok(())
    }
}
