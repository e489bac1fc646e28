//! What the node is told to be, and its way into force: the file, as it changes, and the servers that sources name.
//!
//! One task owns it all. Everything new is read and checked before anything happens; what cannot be is refused with its
//! reason, and what was in force before goes on.

mod followed;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use base::{TaskKind, Tasks};
use discovery::{FileWatch, News, Servers, expand};
use gateway::Gateway;
use protocol::resource::{NodeSpec, UpstreamSpec};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::handover::Handed;
use crate::cli::UpArgs;
use crate::config::{Config, Environment};
use crate::exit::{Failure, Outcome};
use crate::managed::{Adopted, Fleet, Handles, Process, Wanted};
use followed::Followed;
pub(super) use status::Status;

/// Managed processes, with their upstreams.
pub(super) type Running = Vec<(String, UpstreamSpec, Adopted)>;

/// News that wait while one is being published; then sources wait too.
const NEWS_MAX: usize = 64;

/// Longest wait of the start for sources of servers: two questions to name servers that do not answer.
const INFORMED: Duration = Duration::from_secs(5);

/// How others speak to the director. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    orders: mpsc::Sender<Order>,
    settings: watch::Receiver<Settings>,
    /// Pools of which no source has said anything yet.
    unheard: watch::Receiver<BTreeSet<String>>,
}

/// What may change while the node runs and matters when it stops.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) drain_delay: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) upgrade_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// The longest that any managed process may take to stop.
    pub(super) stop_timeout: Duration,
}

impl Settings {
    fn of(config: &Config) -> Self {
        let processes = config
            .upstreams()
            .filter_map(|(_, upstream)| upstream.process.as_ref());
        let patience = processes.map(|process| process.stop_timeout_ms).max();
        let node = &config.node;
        Self {
            drain_delay: Duration::from_millis(node.drain_delay_ms),
            drain_timeout: Duration::from_millis(node.drain_timeout_ms),
            upgrade_timeout: Duration::from_millis(node.upgrade_timeout_ms),
            request_timeout: Duration::from_millis(node.request_timeout_ms),
            stop_timeout: Duration::from_millis(patience.unwrap_or_default()),
        }
    }
}

#[derive(Debug)]
enum Order {
    /// Nothing changes from now on, and the processes are in other hands.
    Release(oneshot::Sender<Running>),
    /// The other hands did not take them.
    Resume(Running),
}

impl Handle {
    /// As they are now.
    pub(super) fn settings(&self) -> Settings {
        self.settings.borrow().clone()
    }

    /// Waits until every source of servers has answered or failed, though not for long.
    pub(super) async fn informed(&mut self) {
        let heard = self.unheard.wait_for(BTreeSet::is_empty);
        let _late = tokio::time::timeout(INFORMED, heard).await;
    }

    /// Lets go of every managed process, and stands still until [`Handle::resume`].
    pub(super) async fn release(&self) -> Running {
        let (tell, released) = oneshot::channel();
        if self.orders.send(Order::Release(tell)).await.is_err() {
            return Running::new();
        }
        released.await.unwrap_or_default()
    }

    pub(super) async fn resume(&self, running: Running) {
        // A director that is gone has been stopped with the node.
        let _stopped = self.orders.send(Order::Resume(running)).await;
    }
}

/// What the director works with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) args: UpArgs,
    pub(super) environment: Environment,
    pub(super) tasks: Tasks,
    pub(super) gateway: Gateway,
    pub(super) fleet: Fleet,
    pub(super) status: Status,
}

#[derive(Debug)]
pub(super) struct Director {
    args: UpArgs,
    environment: Environment,
    tasks: Tasks,
    gateway: Gateway,
    fleet: Fleet,
    /// As it was started.
    running: NodeSpec,
    config: Config,
    servers: Servers,
    followed: Followed,
    status: Status,
    settings: watch::Sender<Settings>,
    unheard: watch::Sender<BTreeSet<String>>,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Receiver<News>,
    /// Whether the processes are in other hands.
    released: bool,
}

impl Director {
    /// Starts the processes (or goes on with those that run) and the sources of `config`, which has been published.
    pub(super) fn start(parts: Parts, config: Config, running: Running) -> Outcome<Handle> {
        let (sender, orders) = mpsc::channel(1);
        let (listener, news) = mpsc::channel(NEWS_MAX);
        let settings = watch::Sender::new(Settings::of(&config));
        let templates = config
            .upstreams()
            .filter(|(_, spec)| spec.discovery.is_some());
        let unheard = watch::Sender::new(templates.map(|(name, _)| name.to_owned()).collect());
        let handle = Handle {
            orders: sender,
            settings: settings.subscribe(),
            unheard: unheard.subscribe(),
        };
        let mut director = Self {
            followed: Followed::new(parts.tasks.clone(), listener),
            status: parts.status,
            args: parts.args,
            environment: parts.environment,
            tasks: parts.tasks.clone(),
            gateway: parts.gateway,
            fleet: parts.fleet,
            running: config.node.clone(),
            servers: Servers::new(),
            config,
            settings,
            unheard,
            orders,
            news,
            released: false,
        };
        director.manage(running)?;
        director.followed.follow(&director.config);
        director.status.start(&director.config);
        let hangups = signal(SignalKind::hangup())?;
        let name = "configuration";
        parts
            .tasks
            .spawn(TaskKind::Configuration, name, async move {
                director.serve(hangups).await;
                Ok(())
            });
        Ok(handle)
    }

    async fn serve(mut self, mut hangups: Signal) {
        let mut files = FileWatch::new(self.config.files.clone());
        let watched = !self.config.files.is_empty();
        let tasks = self.tasks.clone();
        loop {
            // Cancel-safe: a file that changed is seen again, and channels and signals keep what came.
            tokio::select! {
                () = tasks.stopped() => return,
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                Some(news) = self.news.recv(), if !self.released => self.hear(news),
                () = files.changed(), if watched && !self.released => self.reload(),
                _ = hangups.recv() => {
                    tracing::info!(signal = "SIGHUP", "reading the configuration again");
                    self.reload();
                }
            }
            files.watch(self.config.files.clone());
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Release(tell) => {
                self.released = true;
                let released = self.fleet.release().await;
                if let Err(unheard) = tell.send(released) {
                    self.resume(unheard);
                }
            }
            Order::Resume(running) => self.resume(running),
        }
    }

    fn resume(&mut self, running: Running) {
        self.released = false;
        if let Err(failure) = self.manage(running) {
            tracing::error!(
                error = base::chain(failure.error.as_ref()),
                "managed processes cannot be gone on with"
            );
        }
    }

    /// The file, or what it names, may be another.
    fn reload(&mut self) {
        if self.released {
            return;
        }
        let read = Config::reload(&self.args, &self.environment, &self.running);
        let applied = read.and_then(|(next, restart)| {
            if next.resources == self.config.resources {
                return Ok((self.status.generation(), restart, false));
            }
            let generation = self.apply(next)?;
            Ok((generation, restart, true))
        });
        match applied {
            Ok((generation, restart, changed)) => {
                self.status.applied(generation, restart, changed);
            }
            Err(failure) => self.status.refused(&failure),
        }
    }

    /// Publishes it if everything in it can be done; then does the rest.
    fn apply(&mut self, next: Config) -> Outcome<u64> {
        let wanted = wanted(&next);
        self.fleet.check(&wanted)?;
        let mut servers = self.servers.clone();
        servers.retain(|name, _| {
            next.upstreams()
                .any(|(known, spec)| known == name && spec.discovery.is_some())
        });
        let leaving = self.fleet.leaving(&wanted);
        let usage = leaving.into_iter().filter_map(|name| {
            let usage = self.gateway.usage(&name)?;
            Some((name, usage))
        });
        let usage = usage.collect();
        let generation = publish(&self.gateway, &next, &servers)?;
        let patience = Duration::from_millis(next.node.drain_timeout_ms);
        self.config = next;
        self.servers = servers;
        self.settings.send_replace(Settings::of(&self.config));
        self.fleet
            .follow(&wanted, usage, patience, BTreeMap::new())?;
        self.followed.follow(&self.config);
        Ok(generation)
    }

    /// A source has something to say.
    fn hear(&mut self, news: News) {
        let pool = news.pool.clone();
        self.learn(news);
        self.unheard
            .send_if_modified(|unheard| unheard.remove(&pool));
    }

    fn learn(&mut self, news: News) {
        let News { pool, found } = news;
        let template = self
            .config
            .upstreams()
            .any(|(name, spec)| name == pool && spec.discovery.is_some());
        if !template {
            return; // it spoke while it was being removed
        }
        let servers = match found {
            Ok(servers) => servers,
            Err(error) => return self.status.unknown(&pool, &base::chain(&error)),
        };
        let mut next = self.servers.clone();
        let count = servers.len();
        next.insert(pool.clone(), servers);
        match publish(&self.gateway, &self.config, &next) {
            Ok(generation) => {
                self.servers = next;
                self.status.known(&pool, count, generation);
            }
            Err(failure) => self
                .status
                .unknown(&pool, &base::chain(failure.error.as_ref())),
        }
    }

    fn manage(&mut self, running: Running) -> Outcome {
        let wanted = wanted(&self.config);
        let patience = Duration::from_millis(self.config.node.drain_timeout_ms);
        let same = |name: &str, spec: &UpstreamSpec| {
            wanted.get(name).is_some_and(|upstream| {
                upstream.url == spec.url && upstream.process == spec.process
            })
        };
        // One that is wanted otherwise, or not at all, is let go: it ends when the kapok before has gone too.
        let running = running
            .into_iter()
            .filter(|(name, spec, _)| same(name, spec));
        let running = running.map(|(name, _, adopted)| (name, adopted)).collect();
        self.fleet
            .follow(&wanted, BTreeMap::new(), patience, running)
    }
}

/// A process that another kapok has started.
pub(super) fn adopt(
    handed: Handed,
    descriptors: Vec<OwnedFd>,
) -> io::Result<(String, UpstreamSpec, Adopted)> {
    let Ok([line, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(io::Error::other("a process comes with three descriptors"));
    };
    let handles = Handles {
        line,
        stdout,
        stderr,
    };
    let process = Process::adopt(crate::managed::sink(&handed.name), handed.pid, handles)?;
    let spec = json!({ "url": handed.url, "process": handed.process });
    let ready = handed.ready;
    let spec = serde_json::from_value(spec)?;
    Ok((handed.name, spec, Adopted { process, ready }))
}

fn wanted(config: &Config) -> Wanted {
    let managed = config
        .upstreams()
        .filter(|(_, spec)| spec.process.is_some());
    managed
        .map(|(name, spec)| (name.to_owned(), spec.clone()))
        .collect()
}

fn publish(gateway: &Gateway, config: &Config, servers: &Servers) -> Outcome<u64> {
    gateway
        .publish(&expand(&config.resources, servers))
        .map_err(|error| Failure::usage(base::chain(&error)))
}
