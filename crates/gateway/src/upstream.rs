//! A server that requests are sent to: what was written about it, and what is known of it now.

mod address;
mod connection;
mod pool;
mod tls;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use protocol::resource::{Secret, UpstreamKind, UpstreamSpec};

pub(crate) use address::Address;
pub(crate) use connection::{Connection, RequestBody, SendError};
pub(crate) use pool::{Pool, SWEEP_EVERY};

use crate::metrics::TargetMetrics;

/// One upstream of a snapshot.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: Arc<str>,
    pub(crate) spec: UpstreamSpec,
    pub(crate) address: Address,
    /// `Bearer …`, sent instead of the client's.
    pub(crate) authorization: Option<HeaderValue>,
    /// Survives a publish as long as the upstream is the same server.
    pub(crate) live: Arc<Live>,
}

impl Upstream {
    /// Checks a spec. The secret must have been looked up: this room reads neither files nor the environment.
    pub(crate) fn new(name: &str, spec: &UpstreamSpec) -> Result<Self, String> {
        let address = Address::parse(&spec.url)?;
        let authorization = match &spec.api_key {
            None => None,
            Some(Secret::Value(key)) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| "apiKey has characters that no header can carry".to_owned())?;
                value.set_sensitive(true);
                Some(value)
            }
            Some(Secret::Env(_) | Secret::File(_)) => {
                return Err("apiKey was not looked up before publishing".to_owned());
            }
        };
        Ok(Self {
            name: name.into(),
            live: Arc::new(Live::new(spec)),
            address,
            authorization,
            spec: spec.clone(),
        })
    }

    /// Takes over connections and readiness from `before` if it is the same server reached the same way.
    pub(crate) fn inherit(&mut self, before: &Self) {
        let (new, old) = (&self.spec, &before.spec);
        if new.url == old.url
            && new.process == old.process
            && new.idle_connections_max == old.idle_connections_max
        {
            self.live = Arc::clone(&before.live);
        }
    }

    pub(crate) fn ready(&self) -> bool {
        self.live.ready.load(Ordering::Acquire)
    }

    /// Why it is not ready; empty when it is.
    pub(crate) fn reason(&self) -> String {
        if self.ready() {
            String::new()
        } else {
            self.live.reason.lock().clone()
        }
    }

    /// Whether it speaks the protocol that the request came in.
    pub(crate) fn speaks(&self, wire: Wire) -> bool {
        match (self.spec.kind, wire) {
            (UpstreamKind::Kapok, _) => true,
            (UpstreamKind::Triton, wire) => wire == Wire::Oip,
            (UpstreamKind::OpenAi | UpstreamKind::Vllm | UpstreamKind::Sglang, wire) => {
                wire == Wire::OpenAi
            }
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.spec.connect_timeout_ms)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.spec.idle_timeout_ms)
    }
}

/// The protocol family of a request, as far as choosing an upstream needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    OpenAi,
    Oip,
}

/// What is known of an upstream now.
#[derive(Debug)]
pub(crate) struct Live {
    ready: AtomicBool,
    reason: Mutex<String>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) pool: Pool,
    /// Set when the upstream is first published.
    pub(crate) metrics: OnceLock<Arc<TargetMetrics>>,
}

impl Live {
    fn new(spec: &UpstreamSpec) -> Self {
        // A process has to say that it is up; anything else is taken to be there until a request finds otherwise.
        let managed = spec.process.is_some();
        Self {
            ready: AtomicBool::new(!managed),
            reason: Mutex::new(if managed {
                "its process has not started yet".to_owned()
            } else {
                String::new()
            }),
            in_flight: AtomicUsize::new(0),
            pool: Pool::new(spec.idle_connections_max),
            metrics: OnceLock::new(),
        }
    }

    pub(crate) fn set_ready(&self, ready: bool, reason: &str) {
        reason.clone_into(&mut self.reason.lock());
        self.ready.store(ready, Ordering::Release);
        if !ready {
            // Connections to a server that went away are of no use to the one that comes back.
            self.pool.clear();
        }
    }
}
