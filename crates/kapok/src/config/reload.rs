//! The same way again while the node runs: what it can take over is taken over, the rest is named and stays.

use protocol::resource::{DiscoverySpec, NodeSpec, Resource, Secret, Spec};
use serde_json::Value;

use super::{Config, Environment, check_admin, node_mut};
use crate::cli::UpArgs;
use crate::exit::{Failure, Outcome};

/// Fields of the Node that a running process takes over.
const LIVE: &[&str] = &[
    "drainDelayMs",
    "drainTimeoutMs",
    "region",
    "upgradeTimeoutMs",
];

impl Config {
    /// Reads everything anew. `running` is the node as it was started: fields that cannot change while it runs keep
    /// those values; the names of those that should have changed come back.
    pub(crate) fn reload(
        args: &UpArgs,
        environment: &Environment,
        running: &NodeSpec,
    ) -> Outcome<(Self, Vec<String>)> {
        let mut next = Self::load(args, environment)?;
        if next.documents == 0 && next.file.is_some() {
            // Some tools empty a file before they write it; and nobody wants to serve nothing.
            return Err(Failure::usage("the file has no documents")
                .hint("to serve nothing, keep at least a document of kind Node"));
        }
        let wanted = next.node.clone();
        let kept = keep(&mut next.resources, running)?;
        next.node = node_mut(&mut next.resources).clone();
        // What guards the admin port that is open, not the one that is written down.
        check_admin(&mut next.resources)?;
        let restart = if kept == wanted {
            Vec::new()
        } else {
            differing(&wanted, &next.node)?
        };
        Ok((next, restart))
    }
}

/// Puts the running values in their place; returns the node as it then is.
fn keep(resources: &mut Vec<Resource>, running: &NodeSpec) -> Outcome<NodeSpec> {
    let node = node_mut(resources);
    let mut document = as_json(running)?;
    let wanted = as_json(node)?;
    for field in LIVE {
        if let (Some(slot), Some(value)) = (document.get_mut(*field), wanted.get(*field)) {
            slot.clone_from(value);
        }
    }
    *node = serde_json::from_value(document)
        .map_err(|error| Failure::failed(format!("the node cannot be read back: {error}")))?;
    // Its secrets are not written out, so they were not read back.
    node.otlp.clone_from(&running.otlp);
    Ok(node.clone())
}

fn differing(wanted: &NodeSpec, kept: &NodeSpec) -> Outcome<Vec<String>> {
    let (wanted, kept) = (as_json(wanted)?, as_json(kept)?);
    let fields = wanted.as_object().into_iter().flatten();
    let differing = fields.filter(|(name, value)| kept.get(name.as_str()) != Some(value));
    Ok(differing.map(|(name, _)| name.clone()).collect())
}

fn as_json(node: &NodeSpec) -> Outcome<Value> {
    serde_json::to_value(node)
        .map_err(|error| Failure::failed(format!("the node cannot be written out: {error}")))
}

/// Files whose content is part of the configuration.
pub(super) fn secret_files(resources: &[Resource]) -> impl Iterator<Item = std::path::PathBuf> {
    let upstreams = resources
        .iter()
        .filter_map(|resource| match &resource.spec {
            Spec::Upstream(upstream) => Some(upstream),
            Spec::Node(_) | Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => None,
        });
    let secrets = upstreams.flat_map(|upstream| {
        let etcd = match &upstream.discovery {
            Some(DiscoverySpec::Etcd(etcd)) => etcd.password.as_ref(),
            _ => None,
        };
        upstream.api_key.iter().chain(etcd)
    });
    secrets.filter_map(|secret| match secret {
        Secret::File(file) => Some(file.clone()),
        Secret::Env(_) | Secret::Value(_) => None,
    })
}
