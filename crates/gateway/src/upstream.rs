//! A server that requests are sent to: what was written about it, and what is known of it now.

mod address;
mod body;
mod connection;
mod dial;
mod get;
mod health;
mod http1;
mod http2;
mod pool;
mod post;
mod tls;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use protocol::resource::{OipForm, Secret, UpstreamKind, UpstreamSpec};
use routing::Meter;
use telemetry::metrics::Histogram;

pub(crate) use address::Address;
pub(crate) use body::{Broken, RequestBody};
pub(crate) use connection::{Connection, ReceiveError, SendError};
pub(crate) use dial::Via;
pub(crate) use get::{GetError, get, get_elsewhere, take};
pub use http1::fuzz_http_answer;
pub(crate) use http2::Http2Pool;
pub(crate) use pool::{Pool, SWEEP_EVERY};
pub(crate) use post::{Answer, post};

use crate::admission::Line;
use crate::gateway::Readiness;
use crate::headers::X_API_KEY;
use crate::metrics::TargetMetrics;
use dial::Agreed;
use health::Health;

/// One upstream of a snapshot.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: Arc<str>,
    pub(crate) spec: UpstreamSpec,
    pub(crate) address: Address,
    /// Where it speaks gRPC, if it does.
    pub(crate) grpc: Option<Address>,
    /// Its metrics page, where that is not `/metrics` of its url.
    pub(crate) page: Option<Address>,
    /// Sent instead of the client's.
    credential: Option<(HeaderName, HeaderValue)>,
    /// Survives a publish as long as the upstream is the same server.
    pub(crate) live: Arc<Live>,
}

impl Upstream {
    /// `id` tells it apart from all other servers that were and are. Checks a spec; the secret must have been looked up: this room reads neither files nor the environment.
    pub(crate) fn new(name: &str, spec: &UpstreamSpec, id: u32) -> Result<Self, String> {
        let address = Address::parse(&spec.url)?;
        let grpc = grpc_address(spec, &address)?;
        let page = spec.load.url.as_deref().map(Address::parse).transpose();
        let page = page.map_err(|reason| format!("load.url: {reason}"))?;
        let credential = credential(spec)?;
        Ok(Self {
            name: name.into(),
            live: Arc::new(Live::new(spec, id)),
            address,
            grpc,
            page,
            credential,
            spec: spec.clone(),
        })
    }

    /// Takes over connections and readiness from `before` if it is the same server reached the same way.
    pub(crate) fn inherit(&mut self, before: &Self) {
        let (new, old) = (&self.spec, &before.spec);
        if new.url == old.url
            && new.process == old.process
            && new.idle_connections_max == old.idle_connections_max
            && (new.kind, new.oip, &new.grpc_url) == (old.kind, old.oip, &old.grpc_url)
            && (new.http2, new.http2_streams_max) == (old.http2, old.http2_streams_max)
        {
            self.live = Arc::clone(&before.live);
        }
    }

    pub(crate) fn ready(&self) -> bool {
        self.live.ready.load(Ordering::Acquire)
    }

    /// Whether it is on its way to be ready.
    pub(crate) fn loading(&self) -> bool {
        self.live.loading.load(Ordering::Acquire)
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
            (UpstreamKind::Anthropic, wire) => wire == Wire::Anthropic,
            (UpstreamKind::OpenAi | UpstreamKind::Vllm | UpstreamKind::Sglang, wire) => {
                matches!(wire, Wire::OpenAi | Wire::Anthropic)
            }
        }
    }

    /// Where requests go that are sent this way.
    pub(crate) fn address_of(&self, via: Via) -> &Address {
        match (via, &self.grpc) {
            (Via::Grpc, Some(address)) => address,
            (Via::Grpc, None) | (Via::Http, _) => &self.address,
        }
    }

    /// Puts its own key in place of the client's, if it has one.
    pub(crate) fn authorize(&self, headers: &mut HeaderMap) {
        if let Some((name, own)) = &self.credential {
            headers.remove(AUTHORIZATION);
            headers.remove(X_API_KEY);
            headers.insert(name, own.clone());
        }
    }

    /// Whether its url answers the Open Inference Protocol over REST.
    pub(crate) fn speaks_oip_rest(&self) -> bool {
        self.spec.oip != Some(OipForm::Grpc)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.spec.connect_timeout_ms)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.spec.idle_timeout_ms)
    }
}

fn credential(spec: &UpstreamSpec) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let key = match &spec.api_key {
        None => return Ok(None),
        Some(Secret::Value(key)) => key,
        Some(Secret::Env(_) | Secret::File(_)) => {
            return Err("apiKey was not looked up before publishing".to_owned());
        }
    };
    let (name, text) = match spec.kind {
        UpstreamKind::Anthropic => (X_API_KEY, key.clone()),
        _ => (AUTHORIZATION, format!("Bearer {key}")),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| "apiKey has characters that no header can carry".to_owned())?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

fn grpc_address(spec: &UpstreamSpec, url: &Address) -> Result<Option<Address>, String> {
    if let Some(other) = &spec.grpc_url {
        let parsed = Address::parse(other).map_err(|reason| format!("grpcUrl: {reason}"))?;
        return Ok(Some(parsed));
    }
    let form = spec.oip.or(match spec.kind {
        UpstreamKind::Kapok => Some(OipForm::Both),
        UpstreamKind::Triton => Some(OipForm::Rest),
        _ => None,
    });
    let here = matches!(form, Some(OipForm::Grpc | OipForm::Both));
    Ok(here.then(|| url.clone()))
}

/// The protocol family of a request, as far as choosing an upstream needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
    /// In either form: what an upstream does not speak is translated.
    Oip,
}

/// What is known of an upstream now.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: u32,
    ready: AtomicBool,
    /// While it is not ready: whether it is on its way.
    loading: AtomicBool,
    reason: Mutex<String>,
    /// Our requests there, how quick it is, and what it says of itself.
    pub(crate) meter: Meter,
    pub(crate) health: Health,
    /// Who may send it a request, and who waits to.
    pub(crate) line: Arc<Line>,
    pub(crate) pool: Pool,
    pub(crate) http2: Http2Pool,
    /// Connections to where it speaks gRPC.
    pub(crate) grpc: Http2Pool,
    agreed: Agreed,
    /// Set when the upstream is first published.
    pub(crate) metrics: OnceLock<Arc<TargetMetrics>>,
    /// How long its usual answers take, in HTTP's words.
    pub(crate) calls: OnceLock<Histogram>,
}

impl Live {
    fn new(spec: &UpstreamSpec, id: u32) -> Self {
        // A process has to say that it is up; anything else is taken to be there until a request finds otherwise.
        let managed = spec.process.is_some();
        Self {
            id,
            ready: AtomicBool::new(!managed),
            loading: AtomicBool::new(managed),
            reason: Mutex::new(if managed {
                "its process has not started yet".to_owned()
            } else {
                String::new()
            }),
            meter: Meter::default(),
            health: Health::default(),
            line: Line::new(),
            pool: Pool::new(spec.idle_connections_max),
            http2: Http2Pool::new(spec.http2_streams_max),
            grpc: Http2Pool::new(spec.http2_streams_max),
            agreed: Agreed::default(),
            metrics: OnceLock::new(),
            calls: OnceLock::new(),
        }
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness<'_>) {
        let (ready, loading, reason) = match readiness {
            Readiness::Ready => (true, false, ""),
            Readiness::Loading(reason) => (false, true, reason),
            Readiness::Down(reason) => (false, false, reason),
        };
        reason.clone_into(&mut self.reason.lock());
        self.loading.store(loading, Ordering::Release);
        self.ready.store(ready, Ordering::Release);
        if !ready {
            // Connections to a server that went away are of no use to the one that comes back.
            self.pool.clear();
            self.http2.clear();
            self.grpc.clear();
        }
    }

    /// Closes connections that have been idle too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
        self.http2.sweep();
        self.grpc.sweep();
    }

    pub(crate) fn idle_connections(&self) -> usize {
        self.pool.idle() + self.http2.idle() + self.grpc.idle()
    }
}
