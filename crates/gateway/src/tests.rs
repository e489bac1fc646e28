//! The gateway over real sockets on the loopback, with a fake upstream and fake models.

mod admission;
mod bridged;
mod change;
mod client;
mod control;
mod explain;
mod export;
mod failover;
mod files;
mod grpc;
mod health;
mod hold;
mod http2;
mod kept;
mod loads;
mod models;
mod oip;
mod open;
mod openai;
mod packed;
mod per_core;
mod relay;
mod remote;
mod rescue;
mod shared;
mod stream;
mod too_long;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Deadline, PerCore, TaskKind, Tasks};
use protocol::BufferPool;
use protocol::oip::settings::TraceSettings;
use protocol::resource::Resource;
use telemetry::logs::Logs;
use telemetry::metrics::Registry;
use telemetry::trace::Tracer;
use telemetry::{Recent, Record, Stage};

use crate::{Config, Door, Gateway, Parts};

use client::{Answer, Client};
use models::FakeModels;

/// Longer than anything here takes, shorter than a person waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that serves a public and an admin port until it is dropped.
struct Served {
    gateway: Gateway,
    models: Arc<FakeModels>,
    recent: Recent,
    tasks: Tasks,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Served {
    fn start(resources: &[Resource]) -> Self {
        let config = Config {
            body_bytes_max: 1 << 20,
            ..Config::default()
        };
        Self::with(config, resources)
    }

    fn with(config: Config, resources: &[Resource]) -> Self {
        Self::on(None, config, resources)
    }

    fn on(per_core: Option<PerCore>, config: Config, resources: &[Resource]) -> Self {
        let models = Arc::new(FakeModels::default());
        let recent = Recent::new(100);
        let trace = TraceSettings::default();
        let tasks = Tasks::new();
        let gateway = Gateway::new(Parts {
            config,
            clock: Clock::real(),
            tasks: tasks.clone(),
            per_core,
            models: Arc::clone(&models) as Arc<dyn crate::server::ModelServer>,
            jobs: None,
            recent: recent.clone(),
            registry: Registry::new(),
            pool: BufferPool::default(),
            logs: Logs::detached(),
            tracer: Tracer::new(trace).expect("usable settings"),
            version: "0.0.0-test",
        })
        .expect("a gateway");
        gateway.publish(resources).expect("good resources");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, public) = Gateway::bind(any).expect("a port");
        gateway.serve(listener, Door::Public);
        let (listener, admin) = Gateway::bind(any).expect("a port");
        gateway.serve(listener, Door::Admin);
        Self {
            gateway,
            models,
            recent,
            tasks,
            public,
            admin,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.public).await
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.client().await.ask(method, path, headers, body).await
    }

    /// Calls that models got.
    fn asked(&self) -> usize {
        self.models.asked.load(std::sync::atomic::Ordering::SeqCst)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"").await
    }

    async fn get_admin(&self, path: &str) -> Answer {
        Client::connect(self.admin)
            .await
            .ask("GET", path, "", b"")
            .await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(
            "POST",
            path,
            "content-type: application/json\r\n",
            body.as_bytes(),
        )
        .await
    }

    /// The record of a request, once it has settled.
    async fn settled(&self, id: &str) -> Arc<Record> {
        let found = || self.recent.find(id);
        eventually("the request settles", || found().is_some()).await;
        found().expect("just seen")
    }

    async fn drain(&self) -> bool {
        let deadline = Deadline::after(Clock::real().now(), PATIENCE);
        self.gateway.drain(deadline).await
    }
}

/// The milliseconds that a request spent in a stage.
fn booked(record: &Record, stage: Stage) -> f64 {
    let stages = record.stages.iter();
    stages
        .filter(|time| time.stage == stage)
        .map(|time| time.ms)
        .sum()
}

/// Runs beside the test until the test ends.
fn beside(tasks: &Tasks, work: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(TaskKind::HealthCheck, "test", async move {
        work.await;
        Ok(())
    });
}

/// Waits until something is so; fails with what was waited for.
async fn eventually(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, waiting).await;
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("waited too long: {what}"))
}
