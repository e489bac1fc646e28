//! Servers from etcd, over its JSON gateway (`/v3/…`, etcd 3.4 and later).
//!
//! etcd's own gRPC would need its generated code and a client library whose build wants `protoc`; the gateway is part of
//! every etcd and speaks what we speak. Keys and values are base64 there, and 64-bit numbers are strings.

mod client;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use base::Tasks;
use protocol::resource::{Endpoint, EtcdSpec};
use tokio::time::timeout;

pub(crate) use client::Client;
use watch::{Told, Watch};

use crate::source::Found;
use crate::{Error, Source};

/// Everything is listed again after so long without a word: a watch can be dead and look alive, and some versions lose
/// a deletion when they compact (etcd#18089).
const LIST_AGAIN: Duration = Duration::from_secs(60);

/// The values under a prefix.
#[derive(Debug)]
pub(crate) struct EtcdSource {
    client: Client,
    prefix: String,
    known: BTreeMap<Vec<u8>, Option<Endpoint>>,
    /// Up to which revision `known` is true; 0 before the first list.
    revision: u64,
    watch: Option<Watch>,
    listed: bool,
}

impl EtcdSource {
    pub(crate) fn new(spec: &EtcdSpec, tasks: Tasks) -> Self {
        Self {
            client: Client::new(spec, tasks),
            prefix: spec.prefix.clone(),
            known: BTreeMap::new(),
            revision: 0,
            watch: None,
            listed: false,
        }
    }

    async fn list(&mut self) -> Result<(), Error> {
        let (revision, values) = self.client.list(&self.prefix).await?;
        self.known = values
            .into_iter()
            .map(|(key, value)| {
                let server = read(&key, &value);
                (key, server)
            })
            .collect();
        self.revision = revision;
        self.listed = true;
        Ok(())
    }

    /// What happened since `revision`, when something has.
    async fn follow(&mut self) -> Result<(), Error> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => {
                let watch = Watch::open(&mut self.client, &self.prefix, self.revision + 1).await?;
                self.watch.insert(watch)
            }
        };
        let told = match timeout(LIST_AGAIN, watch.next()).await {
            Ok(told) => told,
            Err(_silence) => Ok(Told::Compacted),
        };
        match told {
            Ok(Told::Changes { revision, changes }) => {
                self.revision = self.revision.max(revision);
                for (key, value) in changes {
                    match value {
                        Some(value) => {
                            let server = read(&key, &value);
                            self.known.insert(key, server);
                        }
                        None => {
                            self.known.remove(&key);
                        }
                    }
                }
                Ok(())
            }
            // Nothing new, but whoever was told of a failure wants to know that it is over.
            Ok(Told::Created) => Ok(()),
            // What happened in between is gone: as it is now is all that can be known.
            Ok(Told::Compacted) => {
                self.watch = None;
                self.list().await
            }
            Err(error) => {
                // The next one begins after the last revision that was seen, so nothing is missed.
                self.watch = None;
                Err(error)
            }
        }
    }

    fn servers(&self) -> Vec<Endpoint> {
        self.known.values().flatten().cloned().collect()
    }
}

impl Source for EtcdSource {
    fn next(&mut self) -> Found<'_> {
        Box::pin(async {
            if self.listed {
                self.follow().await?;
            } else {
                self.list().await?;
            }
            Ok(self.servers())
        })
    }
}

/// A value that cannot be read costs that server only.
fn read(key: &[u8], value: &[u8]) -> Option<Endpoint> {
    let read = std::str::from_utf8(value)
        .map_err(|error| error.to_string())
        .and_then(Endpoint::parse);
    read.inspect_err(|reason| {
        let key = String::from_utf8_lossy(key);
        tracing::warn!(key = %key.escape_debug(), reason, "a server in etcd cannot be read; it is left out");
    })
    .ok()
}

#[cfg(test)]
mod tests;
