use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base::{Clock, Deadline, PerCore, TaskKind, Tasks};
use parking_lot::Mutex;
use protocol::BufferPool;
use protocol::resource::{Resource, UpstreamKind};
use serde::Serialize;
use telemetry::Recent;
use telemetry::logs::Logs;
use telemetry::metrics::Registry;
use telemetry::spans::Spans;
use telemetry::trace::Tracer;

use crate::Error;
use crate::config::Config;
use crate::export::Export;
use crate::hold::Holds;
use crate::keepers::Keepers;
use crate::listener::{Connections, Door, Listener};
use crate::metrics::{Metrics, TargetMetrics};
use crate::read::Budget;
use crate::regions::Regions;
use crate::server::{JobServer, ModelServer};
use crate::snapshot::Snapshot;
use crate::status::ConfigStatus;
use crate::upstream::{Live, SWEEP_EVERY};

/// What the gateway is made of; everything it shares with the rest of the process comes in here.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub clock: Clock,
    pub tasks: Tasks,
    /// Where clients' connections are served, if not by the runtime that serves everything else.
    pub per_core: Option<PerCore>,
    pub models: Arc<dyn ModelServer>,
    /// None where no jobs are taken.
    pub jobs: Option<Arc<dyn JobServer>>,
    pub recent: Recent,
    pub registry: Registry,
    pub pool: BufferPool,
    pub logs: Logs,
    pub tracer: Tracer,
    pub version: &'static str,
}

/// The running gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    started: Instant,
    pub(crate) tasks: Tasks,
    pub(crate) per_core: Option<PerCore>,
    pub(crate) models: Arc<dyn ModelServer>,
    pub(crate) jobs: Option<Arc<dyn JobServer>>,
    pub(crate) recent: Recent,
    pub(crate) registry: Registry,
    pub(crate) pool: BufferPool,
    pub(crate) logs: Logs,
    pub(crate) tracer: Tracer,
    pub(crate) version: &'static str,
    /// What `created` says of models: seconds since 1970.
    pub(crate) started_seconds: u64,
    pub(crate) metrics: Metrics,
    /// Requests that this process answers itself.
    pub(crate) local: Arc<TargetMetrics>,
    /// Requests that were answered before anybody was chosen.
    pub(crate) nobody: Arc<TargetMetrics>,
    pub(crate) connections: Connections,
    pub(crate) body_bytes: Arc<Budget>,
    pub(crate) regions: Regions,
    pub(crate) holds: Holds,
    pub(crate) keepers: Keepers,
    /// None where no spans are sent: all that requests look at then.
    pub(crate) spans: Option<Spans>,
    /// Whether somebody wants to know what requests use that no limit counts.
    pub(crate) reads_usage: bool,
    /// What sends spans and metrics, until it is started.
    export: Mutex<Option<Export>>,
    snapshot: ArcSwap<Snapshot>,
    /// What operators are told of the configuration.
    pub(crate) config_status: ArcSwap<ConfigStatus>,
    /// Whether the node says that it is not ready although it serves: it is about to stop.
    leaving: AtomicBool,
    /// Held while a snapshot is built and published, so that none is built on one that is being replaced.
    publishing: Mutex<()>,
    /// Whether the idle connections of upstreams are looked after.
    sweeping: AtomicBool,
}

impl Gateway {
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let metrics = Metrics::register(&parts.registry);
        let connections = Connections::new(&parts.config);
        let (export, spans) = Export::new(
            &parts.config.otlp,
            parts.version,
            &parts.registry,
            (&parts.clock, &parts.tasks),
        )?;
        Ok(Self(Arc::new(Shared {
            local: metrics.target("local"),
            nobody: metrics.target(""),
            holds: Holds::new(metrics.held().clone()),
            metrics,
            connections,
            body_bytes: Budget::new(parts.config.body_bytes_total_max),
            regions: Regions::default(),
            keepers: Keepers::default(),
            reads_usage: export.is_some(),
            spans,
            export: Mutex::new(export),
            config: parts.config,
            started_seconds: parts
                .clock
                .wall()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            started: parts.clock.now(),
            clock: parts.clock,
            tasks: parts.tasks,
            per_core: parts.per_core,
            models: parts.models,
            jobs: parts.jobs,
            recent: parts.recent,
            registry: parts.registry,
            pool: parts.pool,
            logs: parts.logs,
            tracer: parts.tracer,
            version: parts.version,
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            config_status: ArcSwap::default(),
            leaving: AtomicBool::new(false),
            publishing: Mutex::new(()),
            sweeping: AtomicBool::new(false),
        })))
    }

    /// Makes these resources what requests are routed by, from the next request on. On an error the resources before
    /// stay. Returns the new snapshot's generation.
    ///
    /// Secrets must have been looked up (`Secret::Value`). Connections and readiness of an upstream survive unless its
    /// url or process changes.
    pub fn publish(&self, resources: &[Resource]) -> Result<u64, Error> {
        let _one_at_a_time = self.0.publishing.lock();
        let next = self.snapshot().successor(resources)?;
        for upstream in next.upstreams.values() {
            upstream
                .live
                .metrics
                .get_or_init(|| self.0.metrics.target(&upstream.name));
        }
        let generation = next.generation;
        next.apply_limits(&self.0.clock);
        self.0.snapshot.store(Arc::new(next));
        self.0.holds.release();
        Ok(generation)
    }

    /// Opens a port. Every port is opened before any is served, so that a busy one stops the start, not a request.
    /// Must be called within a runtime.
    pub fn bind(addr: SocketAddr) -> Result<(Listener, SocketAddr), Error> {
        Listener::bind(addr)
    }

    /// Serves a port until [`Gateway::drain`] or until the node stops. Returns at once.
    pub fn serve(&self, listener: Listener, door: Door) {
        if !self.0.sweeping.swap(true, Ordering::Relaxed) {
            self.sweep();
            self.read_loads();
            self.check_upstreams();
            if let Some(export) = self.0.export.lock().take() {
                export.start();
            }
        }
        self.0.connections.accept(self.clone(), listener, door);
    }

    /// Closes idle connections to upstreams in times without a request.
    fn sweep(&self) {
        let gateway = self.clone();
        let work = async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let now = gateway.0.clock.now();
                for upstream in gateway.snapshot().upstreams.values() {
                    upstream.live.sweep(now);
                }
            }
        };
        let tasks = &self.0.tasks;
        tasks.spawn(TaskKind::UpstreamConnection, "idle connections", work);
    }

    /// Reads what upstreams tell of their load, for as long as the node runs.
    fn read_loads(&self) {
        let gateway = self.clone();
        let work = async move {
            crate::scrape::watch(gateway).await;
            Ok(())
        };
        let tasks = &self.0.tasks;
        tasks.spawn(TaskKind::HealthCheck, "loads of upstreams", work);
    }

    /// Asks upstreams how they are, for as long as the node runs.
    fn check_upstreams(&self) {
        let gateway = self.clone();
        let work = async move {
            crate::check::watch(gateway).await;
            Ok(())
        };
        let tasks = &self.0.tasks;
        tasks.spawn(TaskKind::HealthCheck, "health of upstreams", work);
    }

    /// Stops accepting, lets requests in flight finish, and closes their connections: HTTP/1.1 after its answer, h2
    /// with GOAWAY. True if all were done by the deadline; what is left ends with the node's tasks.
    pub async fn drain(&self, deadline: Deadline) -> bool {
        let left = deadline.left(self.0.clock.now());
        self.0.connections.drain(left).await
    }

    /// From now on the node says that it is not ready, and serves on: whoever sends requests here should stop.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
    }

    pub fn set_config_status(&self, status: ConfigStatus) {
        self.0.config_status.store(Arc::new(status));
    }

    /// How much an upstream is used, even after it is published no more. None if there is no such upstream.
    pub fn usage(&self, name: &str) -> Option<Usage> {
        let snapshot = self.snapshot();
        let upstream = snapshot.upstreams.get(name)?;
        Some(Usage(Arc::clone(&upstream.live)))
    }

    /// Says how a managed process is. False if there is no such upstream.
    pub fn upstream_is(&self, name: &str, readiness: Readiness<'_>) -> bool {
        // Not while publishing: the report must reach the state that the next snapshot takes over.
        let _one_at_a_time = self.0.publishing.lock();
        let snapshot = self.snapshot();
        let upstream = snapshot.upstreams.get(name);
        if let Some(upstream) = upstream {
            upstream.live.set_readiness(readiness);
            self.0.holds.release();
        }
        upstream.is_some()
    }

    /// The upstreams as they are now.
    pub fn upstreams(&self) -> Vec<UpstreamStatus> {
        self.snapshot()
            .upstreams
            .values()
            .map(|upstream| UpstreamStatus {
                name: upstream.name.to_string(),
                url: upstream.address.shown.clone(),
                kind: upstream.spec.kind,
                models: upstream.spec.models.clone(),
                ready: upstream.ready(),
                reason: upstream.reason(),
                trouble: upstream.live.health.reason(self.0.clock.now()),
                in_flight: upstream.live.meter.in_flight(),
                idle_connections: upstream.live.idle_connections(),
                process: upstream
                    .spec
                    .process
                    .as_ref()
                    .map(|process| process.command.iter().take(1).cloned().collect()),
            })
            .collect()
    }

    /// The snapshot to use from a request's start to its end.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// [`Shared::ms_at`], now.
    pub(crate) fn now_ms(&self) -> u32 {
        self.ms_at(self.clock.now())
    }

    /// Milliseconds of this gateway's life, as meters of load count them.
    pub(crate) fn ms_at(&self, now: Instant) -> u32 {
        let lived = now.saturating_duration_since(self.started);
        u32::try_from(lived.as_millis() & u128::from(u32::MAX)).unwrap_or(0)
    }

    /// Whether the node takes no more work, or soon will not.
    pub(crate) fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || self.connections.draining()
    }
}

/// Whether an upstream can take requests, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness<'a> {
    Ready,
    /// Soon, as far as anybody knows: requests may wait for it.
    Loading(&'a str),
    Down(&'a str),
}

/// The requests that one upstream answers now.
#[derive(Debug)]
pub struct Usage(Arc<Live>);

impl Usage {
    pub fn in_flight(&self) -> u32 {
        self.0.meter.in_flight()
    }
}

/// One upstream, for operators.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub url: String,
    pub kind: UpstreamKind,
    /// None means any that nobody else claims.
    pub models: Option<Vec<String>>,
    pub ready: bool,
    /// Why it is not ready.
    pub reason: String,
    /// Why it gets requests only if nobody else can answer.
    pub trouble: String,
    pub in_flight: u32,
    pub idle_connections: usize,
    /// The program of a managed process, without its arguments: one of them may be a key.
    pub process: Option<Vec<String>>,
}
