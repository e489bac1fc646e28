use std::sync::Arc;
use std::time::Duration;

use base::{Clock, PerCore, Tasks};
use gateway::{Gateway, Readiness};
use jobs::executor::Executor;
use protocol::BufferPool;
use protocol::oip::settings::TraceSettings;
use protocol::resource::{IoThreads, NodeSpec, RateLimit};
use runtime::Runtime;
use telemetry::Recent;
use telemetry::logs::Logs;
use telemetry::metrics::{Family, Gauge, Registry};
use telemetry::trace::Tracer;

use super::director::{self, Director, Running, Status};
use super::engines;
use super::gpus::Gpus;
use super::jobs::{Around, LocalJobs};
use super::local::LocalModels;
use super::ports::Addresses;
use super::ready::Progress;
use crate::cli::UpArgs;
use crate::config::{Config, Environment};
use crate::exit::{Failure, Outcome};
use crate::managed::{Fleet, Report, State};

/// A started node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    /// Managed processes are stopped after the requests that they answer.
    pub(super) processes: Tasks,
    pub(super) models: Runtime,
    pub(super) gateway: Gateway,
    pub(super) tracer: Tracer,
    status: Status,
}

/// What is there before the node.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) clock: Clock,
    pub(super) registry: Registry,
    pub(super) logs: Logs,
    /// Where jobs run, if not here.
    pub(super) cluster: Option<Arc<dyn Executor>>,
    /// Stopped after the requests that are answered.
    pub(super) processes: Tasks,
}

impl Node {
    /// Starts everything that has no port, and publishes the resources.
    pub(super) fn start(
        config: &Config,
        environment: &Environment,
        (outside, addresses): (Outside, &Addresses),
    ) -> Outcome<Self> {
        let Outside {
            clock,
            registry,
            logs,
            cluster,
            processes,
        } = outside;
        let tracer = start_tracer(config)?;
        let tasks = Tasks::new();
        say_version(&registry);
        let gpus = Gpus::watch(&registry)
            .map_err(|error| Failure::failed(format!("cannot watch the GPUs: {error}")))?;
        let pool = BufferPool::default();
        if config.node.memory_budget_mb.is_some() {
            onnx::keep_little();
        }
        let models = start_models(runtime::Parts {
            config: runtime_config(config, environment, &gpus),
            engines: engines::find(environment, &gpus),
            clock: clock.clone(),
            tasks: tasks.clone(),
            registry: registry.clone(),
            buffers: pool.clone(),
            give_back: onnx::give_back,
        })?;
        let jobs = LocalJobs::start(
            config,
            Around {
                models: &models,
                gpus: &gpus,
                registry: &registry,
                clock: clock.clone(),
                tasks: processes.clone(),
                endpoint: addresses.url(&config.node),
                cluster,
            },
        )?;
        let gateway = Gateway::new(gateway::Parts {
            config: gateway::Config::from(&config.node),
            clock: clock.clone(),
            tasks: tasks.clone(),
            per_core: per_core(&config.node)?,
            models: Arc::new(LocalModels {
                models: models.clone(),
                gpus,
            }),
            jobs: Some(Arc::new(jobs)),
            recent: Recent::new(config.node.recent_requests_max),
            registry: registry.clone(),
            pool,
            logs,
            tracer: tracer.clone(),
            version: env!("CARGO_PKG_VERSION"),
        })
        .and_then(|gateway| {
            let published = gateway.publish(&config.resources);
            published.map(|_generation| gateway)
        })
        .map_err(|error| {
            Failure::usage(base::chain(&error)).hint("correct the configuration and start again")
        })?;
        Ok(Self {
            status: Status::new(&registry, gateway.clone()),
            clock,
            tasks,
            processes,
            models,
            gateway,
            tracer,
        })
    }

    /// Starts the processes that upstreams name, or goes on with those that run, and follows the configuration from now
    /// on.
    pub(super) fn direct(
        &self,
        (args, environment): (&UpArgs, &Environment),
        config: Config,
        progress: &Progress,
        running: Running,
    ) -> Outcome<director::Handle> {
        let gateway = self.gateway.clone();
        let seen = progress.clone();
        let report: Report = Arc::new(move |name, state| {
            let readiness = match state {
                State::Ready => Readiness::Ready,
                State::Starting(reason) => Readiness::Loading(reason),
                State::Down(reason) => Readiness::Down(reason),
            };
            gateway.upstream_is(name, readiness);
            if state == State::Ready {
                seen.answers(name);
            }
        });
        let parts = director::Parts {
            args: args.clone(),
            environment: environment.clone(),
            tasks: self.tasks.clone(),
            gateway: self.gateway.clone(),
            fleet: Fleet::new(self.processes.clone(), self.clock.clone(), report),
            status: self.status.clone(),
        };
        Director::start(parts, config, running)
    }
}

fn start_models(parts: runtime::Parts) -> Outcome<Runtime> {
    Runtime::start(parts).map_err(|error| {
        Failure::usage(base::chain(&error))
            .hint("name folders in Triton's layout: <repository>/<model>/<version>/model.onnx")
    })
}

fn start_tracer(config: &Config) -> Outcome<Tracer> {
    Tracer::new(TraceSettings::from(&config.node.trace)).map_err(|error| {
        Failure::usage(error.to_string()).hint("see `trace` of the Node in the configuration")
    })
}

fn runtime_config(config: &Config, environment: &Environment, gpus: &Gpus) -> runtime::Config {
    runtime::Config {
        repositories: config.node.model_repositories.clone(),
        queue_max: config.node.queue_max,
        response_cache_bytes: config.node.response_cache_mb.saturating_mul(1 << 20),
        rate_limit: (config.node.rate_limit == RateLimit::ExecutionCount)
            .then(|| config.node.rate_limit_resources.clone()),
        cores: base::core_budget().get(),
        cache_dir: environment.cache.clone(),
        control: config.node.model_control,
        load_models: config.node.load_models.clone(),
        memory_budget: config
            .node
            .memory_budget_mb
            .map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
        complete_configs: config.node.complete_configs,
        default_max_batch_size: config.node.default_max_batch_size,
        poll: Duration::from_millis(config.node.model_poll_ms),
        public_key: config.node.model_public_key.clone(),
        gpus: gpus.usable(),
        ..runtime::Config::default()
    }
}

/// Lets a dashboard join any figure with the version that gave it.
fn say_version(registry: &Registry) {
    let build: Family<[(&str, &str); 1], Gauge> = Family::default();
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    build.get_or_create_owned(&labels).set(1);
    registry.register(
        "kapok_build_info",
        "Always 1; the label is the version",
        build,
    );
}

fn per_core(node: &NodeSpec) -> Outcome<Option<PerCore>> {
    match node.io_threads {
        IoThreads::Shared => Ok(None),
        IoThreads::PerCore => PerCore::start(base::core_budget())
            .map(Some)
            .map_err(|error| Failure::failed(format!("threads cannot be started: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/metrics.md is what operators build on, so it says exactly what there is.
    #[tokio::test]
    async fn the_page_of_metrics_lists_what_is_registered() {
        let registry = Registry::new();
        let environment = Environment::default();
        let config =
            Config::load(&crate::cli::UpArgs::default(), &environment).expect("defaults are valid");
        let outside = Outside {
            clock: Clock::real(),
            registry: registry.clone(),
            logs: Logs::detached(),
            cluster: None,
            processes: Tasks::new(),
        };
        let addresses = Addresses::default();
        let node = Node::start(&config, &environment, (outside, &addresses));
        assert!(node.is_ok());
        let mut expected: Vec<_> = registry
            .names()
            .into_iter()
            .map(|(name, help)| format!("| `{name}` | {help} |"))
            .collect();
        expected.sort();
        let page = include_str!("../../../../docs/metrics.md");
        let mut listed: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        listed.sort_unstable();
        assert_eq!(
            listed,
            expected,
            "the page should be:\n{}",
            expected.join("\n")
        );
    }
}
