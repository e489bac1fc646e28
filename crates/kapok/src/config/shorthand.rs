//! Flags and variables that stand for a line of a resource.

use std::net::SocketAddr;

use protocol::resource::{Alias, NodeSpec, Resource, Spec, UpstreamSpec};

use super::{Environment, named, node_mut, otel, upstream_mut};
use crate::cli::{Switch, UpArgs};
use crate::exit::{Failure, Outcome};

/// Triton's gRPC and metrics ports.
const TRITON_PORTS: (u16, u16) = (8001, 8002);
/// The public port beside which Triton's clients expect the other two.
const TRITON_HTTP_PORT: u16 = 8000;

pub(super) fn from_environment(
    resources: &mut Vec<Resource>,
    environment: &Environment,
) -> Outcome {
    let node = node_mut(resources);
    if !environment.model_repositories.is_empty() {
        node.model_repositories = environment.model_repositories.clone();
    }
    for (name, value, place) in [
        ("KAPOK_LISTEN", &environment.listen, &mut node.listen),
        ("KAPOK_ADMIN", &environment.admin, &mut node.admin),
    ] {
        if let Some(value) = value {
            *place = address(name, value)?;
        }
    }
    otel::from_environment(node, environment)
}

fn address(name: &str, value: &str) -> Outcome<SocketAddr> {
    value.parse().map_err(|_| {
        Failure::usage(format!("`{name}` is `{value}`, which is no address"))
            .hint(format!("{name}=127.0.0.1:8000"))
    })
}

pub(super) fn from_flags(resources: &mut Vec<Resource>, args: &UpArgs) -> Outcome {
    let node = node_mut(resources);
    if !args.model_repo.is_empty() {
        node.model_repositories = args.model_repo.clone();
    }
    if args.data.is_some() {
        node.data_dir = args.data.clone();
    }
    node.listen = args.listen.unwrap_or(node.listen);
    node.admin = args.admin.unwrap_or(node.admin);
    for alias in [&mut node.grpc_alias, &mut node.metrics_alias] {
        match args.triton_ports {
            Some(Switch::Off) => *alias = Alias::Off,
            // An alias that the file places somewhere stays there.
            Some(Switch::On) if *alias == Alias::Off => *alias = Alias::Auto,
            Some(Switch::On) | None => {}
        }
    }
    for shorthand in &args.upstream {
        upstream(resources, shorthand)?;
    }
    Ok(())
}

/// Places the aliases that nobody has placed or switched off, once the public address is final.
pub(super) fn choose_aliases(node: &mut NodeSpec, switch: Option<Switch>) {
    let wanted = switch == Some(Switch::On) || node.listen.port() == TRITON_HTTP_PORT;
    let ip = node.listen.ip();
    let (grpc, metrics) = TRITON_PORTS;
    for (alias, port) in [
        (&mut node.grpc_alias, grpc),
        (&mut node.metrics_alias, metrics),
    ] {
        if *alias == Alias::Auto {
            *alias = if wanted {
                Alias::At(SocketAddr::new(ip, port))
            } else {
                Alias::Off
            };
        }
    }
}

/// `NAME=URL`: a new upstream, or another URL for one that the file describes.
fn upstream(resources: &mut Vec<Resource>, shorthand: &str) -> Outcome {
    let (name, url) = shorthand
        .split_once('=')
        .filter(|(name, url)| !name.is_empty() && !name.contains('/') && !url.is_empty())
        .ok_or_else(|| {
            Failure::usage(format!("upstream `{shorthand}` is not NAME=URL"))
                .hint("kapok up --upstream vllm=http://127.0.0.1:8001")
        })?;
    if let Some(known) = upstream_mut(resources, name) {
        url.clone_into(&mut known.url);
        return Ok(());
    }
    resources.push(Resource {
        metadata: named(name),
        spec: Spec::Upstream(UpstreamSpec::at(url)),
    });
    Ok(())
}
