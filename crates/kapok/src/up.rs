//! `kapok up`: a configuration becomes a running node.
//!
//! Order: read the configuration, open every port, start what runs models, publish the resources, start managed processes
//! and sources of servers, serve; models load in the background. A process that takes another one's place ([`upgrade`])
//! loads them before it serves. Stopping goes the other way round: stop accepting and let requests finish,
//! then stop the processes that were answering them.

mod cluster;
mod director;
mod engines;
mod gpus;
mod handover;
mod job_models;
mod jobs;
mod local;
mod node;
mod notify;
mod ports;
mod ready;
mod register;
mod stop;
mod upgrade;

use std::time::Duration;

use base::{Clock, Tasks};
use gateway::Door;
use runtime::Runtime;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{LogFormat, UpArgs};
use crate::config::{Config, Environment};
use crate::exit::{Failure, Outcome};
use crate::output::Printer;
use crate::triton::Manners;
pub(crate) use engines::{
    all as all_engines, describe, one as one_engine, openvino_search, search as engine_search,
};
pub(crate) use gpus::usable_here as usable_gpus;
use node::{Node, Outside};
use ports::{Addresses, Ports};
use ready::Progress;
use register::Registered;
use stop::Signals;
use telemetry::logs::{self, LogError, Logs};
use telemetry::metrics::Registry;
use upgrade::{Inherited, Program};

/// Every connection is a descriptor, and the usual soft limit is 1,024. Not more than this, for what some libraries and
/// child processes do is linear in it.
const OPEN_FILES_MAX: u64 = 65_536;

pub(crate) fn run(args: &UpArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let clock = Clock::real();
    let started = clock.now();
    let mut inherited = Inherited::receive(environment)?;
    let config = Config::load(args, environment)?;
    let logs = start_log(args, environment)?;
    if let Some(file) = &config.file {
        tracing::info!(file = %file.display(), "read the configuration");
    }
    for note in args.triton.iter().flat_map(|manners| &manners.notes) {
        tracing::info!("{note}");
    }
    raise_open_files();
    let executor = executor()?;
    let program = Program::this(environment)?;
    let outcome = executor.block_on(async {
        // A signal that comes during the start is obeyed after it.
        let signals = Signals::catch()?;
        let listeners = inherited
            .as_mut()
            .map(|inherited| std::mem::take(&mut inherited.listeners));
        let ports = Ports::open(&config.node, listeners.unwrap_or_default())?;
        let kept = ports.keep()?;
        let addresses = ports.addresses();
        let processes = Tasks::new();
        let outside = Outside {
            clock: clock.clone(),
            registry: Registry::new(),
            logs,
            cluster: cluster::executor(&config, (processes.clone(), clock.clone())).await?,
            processes,
        };
        let node = Node::start(&config, environment, (outside, &addresses))?;
        let progress = Progress::new(&config, &addresses, started);
        let running = match &inherited {
            Some(inherited) => {
                node.models.loaded().await;
                inherited.processes()?
            }
            None => director::Running::new(),
        };
        let node_spec = config.node.clone();
        let mut director = node.direct((args, environment), config, &progress, running)?;
        director.informed().await;
        ports.serve(&node.gateway);
        if let Some(inherited) = &inherited {
            inherited.serving()?;
        }
        let registered = Registered::start(&node_spec, addresses.public(), &node.tasks);
        addresses.announce(printer)?;
        notify::tell(environment, notify::READY);
        let ready = async {
            progress.announce(&node.models, clock).await;
            match &args.triton {
                Some(manners) => tritons_words(manners, &node.models, &addresses),
                None => Ok(()),
            }
        };
        let end = stop::End {
            node: &node,
            director: &director,
            environment,
            program,
            kept,
            registered,
        };
        let outcome = end.come(signals, ready).await;
        node.tracer.flush();
        outcome
    });
    // What is left has had its time; dropping it ends managed processes too.
    executor.shutdown_timeout(Duration::from_millis(500));
    outcome
}

fn executor() -> Outcome<tokio::runtime::Runtime> {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(base::core_budget().get())
        .thread_name("kapok-io")
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::new(error).context("threads cannot be started"))?;
    Ok(executor)
}

/// What Triton's scripts wait to see, or the end that they expect when a model does not load.
fn tritons_words(manners: &Manners, models: &Runtime, addresses: &Addresses) -> Outcome {
    let failed = models.failed();
    if let Some(entry) = failed.first().filter(|_| manners.exit_on_error) {
        return Err(Failure::failed(format!(
            "creating server: Internal - failed to load all models: `{}`: {}",
            entry.name, entry.reason
        ))
        .hint("--exit-on-error=false serves the others"));
    }
    for (wanted, door, service) in [
        (manners.grpc, Door::Grpc, "GRPCInferenceService"),
        (manners.http, Door::Public, "HTTPService"),
        (manners.metrics, Door::Metrics, "Metrics Service"),
    ] {
        if let Some(address) = addresses.of(door).filter(|_| wanted) {
            tracing::info!("Started {service} at {address}");
        }
    }
    Ok(())
}

fn start_log(args: &UpArgs, environment: &Environment) -> Outcome<Logs> {
    let filter = environment.log.as_deref().unwrap_or("info");
    let options = match &args.triton {
        Some(manners) => logs::Options {
            filter: filter.to_owned(),
            ..manners.log.clone()
        },
        None => options(args, filter),
    };
    Logs::init(options).map_err(|error| match error {
        LogError::Filter(_) => Failure::usage(format!("`KAPOK_LOG` is `{filter}`: {error}"))
            .hint("KAPOK_LOG=info,gateway=debug"),
        LogError::File { .. } => Failure::failed(base::chain(&error)),
    })
}

fn options(args: &UpArgs, filter: &str) -> logs::Options {
    logs::Options {
        format: match args.log_format {
            LogFormat::Text => logs::Format::Text,
            LogFormat::Json => logs::Format::Json,
        },
        filter: filter.to_owned(),
        ..logs::Options::default()
    }
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
