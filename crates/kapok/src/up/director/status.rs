use std::collections::BTreeMap;

use gateway::{ConfigStatus, Gateway, PoolStatus};
use telemetry::metrics::{Counter, Family, Gauge, Registry};

use crate::config::Config;
use crate::exit::Failure;

/// Says what is in force and what is not: in the log once, in metrics, and to whoever asks the admin port.
#[derive(Debug, Clone)]
pub(in crate::up) struct Status {
    gateway: Gateway,
    changes: Family<[(&'static str, &'static str); 1], Counter>,
    servers: Family<[(&'static str, String); 1], Gauge>,
    said: ConfigStatus,
    pools: BTreeMap<String, PoolStatus>,
}

impl Status {
    pub(in crate::up) fn new(registry: &Registry, gateway: Gateway) -> Self {
        let (changes, servers) = register(registry);
        Self {
            gateway,
            changes,
            servers,
            said: ConfigStatus {
                generation: 1,
                ..ConfigStatus::default()
            },
            pools: BTreeMap::new(),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.said.generation
    }

    pub(super) fn start(&mut self, config: &Config) {
        self.said.file = config.file.as_ref().map(|file| file.display().to_string());
        self.say();
    }

    pub(super) fn applied(&mut self, generation: u64, restart: Vec<String>, changed: bool) {
        let recovered = self.said.refused.take().is_some();
        if changed || recovered {
            let outcome = [("outcome", "applied")];
            self.changes.get_or_create_owned(&outcome).inc();
            tracing::info!(generation, "the configuration is in force");
        }
        if !restart.is_empty() && restart != self.said.needs_restart {
            tracing::warn!(
                fields = restart.join(", "),
                "these fields of the Node change with a restart or an upgrade; the running values are kept"
            );
        }
        self.said.generation = generation;
        self.said.needs_restart = restart;
        self.say();
    }

    pub(super) fn refused(&mut self, failure: &Failure) {
        let reason = base::chain(failure.error.as_ref());
        let outcome = [("outcome", "refused")];
        self.changes.get_or_create_owned(&outcome).inc();
        tracing::warn!(
            reason,
            "the configuration is refused; what was in force before stays"
        );
        self.said.refused = Some(reason);
        self.say();
    }

    pub(super) fn known(&mut self, pool: &str, servers: usize, generation: u64) {
        tracing::info!(pool, servers, generation, "the servers of a pool are known");
        let gauge = self
            .servers
            .get_or_create_owned(&[("pool", pool.to_owned())]);
        gauge.set(i64::try_from(servers).unwrap_or(i64::MAX));
        self.said.generation = generation;
        let status = PoolStatus {
            name: pool.to_owned(),
            servers,
            error: None,
        };
        self.pools.insert(pool.to_owned(), status);
        self.say();
    }

    pub(super) fn unknown(&mut self, pool: &str, error: &str) {
        let status = self.pools.entry(pool.to_owned()).or_default();
        pool.clone_into(&mut status.name);
        if status.error.as_deref() != Some(error) {
            let servers = status.servers;
            tracing::warn!(
                pool,
                error,
                servers,
                "the servers of a pool are not known for now; the last ones serve"
            );
        }
        status.error = Some(error.to_owned());
        self.say();
    }

    fn say(&mut self) {
        self.said.pools = self.pools.values().cloned().collect();
        self.gateway.set_config_status(self.said.clone());
    }
}

type Registered = (
    Family<[(&'static str, &'static str); 1], Counter>,
    Family<[(&'static str, String); 1], Gauge>,
);

fn register(registry: &Registry) -> Registered {
    let (changes, servers) = Registered::default();
    registry.register(
        "kapok_config_changes_total",
        "Changes of the configuration while the node ran, by outcome",
        changes.clone(),
    );
    registry.register(
        "kapok_discovery_servers",
        "Servers that a pool's source names",
        servers.clone(),
    );
    (changes, servers)
}
