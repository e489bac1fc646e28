//! `kapok up`: a configuration becomes a running node.
//!
//! Order: read the configuration, open every port, start what runs models, publish the resources, serve, start managed
//! processes; models load in the background. Stopping goes the other way round: stop accepting and let requests finish,
//! then stop the processes that were answering them.

mod engines;
mod local;
mod ports;
mod stop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, TaskKind, Tasks};
use gateway::Gateway;
use protocol::{BufferPool, ModelState};
use runtime::Runtime;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telemetry::Recent;
use telemetry::metrics::Registry;

use crate::cli::{LogFormat, UpArgs};
use crate::config::{Config, Environment};
use crate::exit::{Failure, Outcome};
use crate::managed::{Managed, Report};
use crate::output::Printer;
pub(crate) use engines::search as engine_search;
use local::LocalModels;
use ports::{Addresses, Ports};

/// Every connection is a descriptor, and the usual soft limit is 1,024. Not more than this, for what some libraries and
/// child processes do is linear in it.
const OPEN_FILES_MAX: u64 = 65_536;

pub(crate) fn run(args: &UpArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let clock = Clock::real();
    let started = clock.now();
    let config = Config::load(args, environment)?;
    start_log(args, environment)?;
    if let Some(file) = &config.file {
        tracing::info!(file = %file.display(), "read the configuration");
    }
    raise_open_files();
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(base::core_budget().get())
        .thread_name("kapok-io")
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::new(error).context("threads cannot be started"))?;
    let outcome = executor.block_on(async {
        let ports = Ports::open(&config.node)?;
        let node = Node::start(&config, environment, clock.clone())?;
        let addresses = ports.serve(&node.gateway);
        node.manage(&config)?;
        addresses.announce(printer)?;
        let ready = node.announce_ready(&config, &addresses, started);
        stop::until_stopped(&node, &config, ready).await
    });
    // What is left has had its time; dropping it ends managed processes too.
    executor.shutdown_timeout(Duration::from_millis(500));
    outcome
}

fn start_log(args: &UpArgs, environment: &Environment) -> Outcome {
    let format = match args.log_format {
        LogFormat::Text => telemetry::logs::Format::Text,
        LogFormat::Json => telemetry::logs::Format::Json,
    };
    let filter = environment.log.as_deref().unwrap_or("info");
    telemetry::logs::init(format, filter)
        .map(|_first| ())
        .map_err(|error| {
            Failure::usage(format!("`KAPOK_LOG` is `{filter}`: {error}"))
                .hint("KAPOK_LOG=info,gateway=debug")
        })
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES_MAX, |most| most.min(OPEN_FILES_MAX));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::info!(%error, "the limit of open files stays as it is");
        }
    }
}

/// A started node.
#[derive(Debug)]
struct Node {
    clock: Clock,
    tasks: Tasks,
    /// Managed processes are stopped after the requests that they answer.
    processes: Tasks,
    models: Runtime,
    gateway: Gateway,
}

impl Node {
    /// Starts everything that has no port, and publishes the resources.
    fn start(config: &Config, environment: &Environment, clock: Clock) -> Outcome<Self> {
        let tasks = Tasks::new();
        let registry = Registry::new();
        let pool = BufferPool::default();
        let models = Runtime::start(runtime::Parts {
            config: runtime::Config {
                repositories: config.node.model_repositories.clone(),
                queue_max: config.node.queue_max,
                cores: base::core_budget().get(),
                cache_dir: environment.cache.clone(),
            },
            engines: engines::find(config, environment),
            clock: clock.clone(),
            tasks: tasks.clone(),
            registry: registry.clone(),
            buffers: pool.clone(),
        })
        .map_err(|error| {
            Failure::usage(base::chain(&error))
                .hint("name folders in Triton's layout: <repository>/<model>/<version>/model.onnx")
        })?;
        let gateway = Gateway::new(gateway::Parts {
            config: gateway::Config::from(&config.node),
            clock: clock.clone(),
            tasks: tasks.clone(),
            models: Arc::new(LocalModels(models.clone())),
            recent: Recent::new(config.node.recent_requests_max),
            registry,
            pool,
            version: env!("CARGO_PKG_VERSION"),
        })
        .and_then(|gateway| {
            gateway
                .publish(&config.resources)
                .map(|_generation| gateway)
        })
        .map_err(|error| {
            Failure::usage(base::chain(&error)).hint("correct the configuration and start again")
        })?;
        Ok(Self {
            clock,
            tasks,
            processes: Tasks::new(),
            models,
            gateway,
        })
    }

    /// Starts the processes that upstreams name.
    fn manage(&self, config: &Config) -> Outcome {
        let gateway = self.gateway.clone();
        let report: Report = Arc::new(move |name, outcome| {
            let reason = outcome.err();
            gateway.upstream_ready(name, reason.is_none(), reason.unwrap_or_default());
        });
        for (name, upstream) in config.upstreams() {
            let managed = Managed::new(
                name,
                upstream,
                Arc::clone(&report),
                self.processes.clone(),
                self.clock.clone(),
            )
            .map_err(|error| {
                Failure::usage(format!("upstream `{name}`: {error}"))
                    .hint("a process is asked for its health over plain http")
            })?;
            if let Some(managed) = managed {
                self.processes
                    .spawn(TaskKind::ManagedProcess, name, async move {
                        managed.run().await;
                        Ok(())
                    });
            }
        }
        Ok(())
    }

    /// Resolves after saying that all there is to load has been loaded.
    fn announce_ready(
        &self,
        config: &Config,
        addresses: &Addresses,
        started: Instant,
    ) -> impl Future<Output = ()> + use<> {
        let models = self.models.clone();
        let clock = self.clock.clone();
        let upstreams = config.upstreams().count();
        let public = addresses.public();
        async move {
            models.loaded().await;
            let index = models.index();
            let ready = index
                .iter()
                .filter(|entry| entry.state == ModelState::Ready)
                .count();
            let counts = match index.len() {
                all if all == ready => count(ready, "model"),
                all => format!("{ready} of {} ready", count(all, "model")),
            };
            let address = public.map_or_else(String::new, |address| address.to_string());
            tracing::info!(
                "kapok is ready on http://{address} ({counts}, {}) in {} ms",
                count(upstreams, "upstream"),
                (clock.now() - started).as_millis()
            );
            if index.is_empty() && upstreams == 0 {
                tracing::info!(
                    "nothing to serve yet: kapok up --model-repo DIR, or --upstream NAME=URL"
                );
            }
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
