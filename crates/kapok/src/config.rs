//! The only reader of the environment, and the way from file, environment and flags to one list of resources.
//!
//! Later wins: defaults, file, environment, flags, `--set`.

mod environment;
mod otel;
mod reload;
mod secret;
mod set;
mod shorthand;

use std::path::{Path, PathBuf};

use protocol::resource::{
    DiscoverySpec, EtcdSpec, Metadata, NodeSpec, Resource, Spec, UpstreamSpec, parse_documents,
};

use crate::cli::UpArgs;
use crate::exit::{Failure, Outcome};

pub(crate) use environment::{Environment, HANDOVER};

/// Used when nobody names a file and this one is there.
const DEFAULT_FILE: &str = "kapok.yaml";

/// What a node is to do, complete and looked up.
#[derive(Debug)]
pub(crate) struct Config {
    /// The file it came from, if any.
    pub(crate) file: Option<PathBuf>,
    pub(crate) node: NodeSpec,
    /// All resources, the node among them, secrets replaced by their values.
    pub(crate) resources: Vec<Resource>,
    /// The file and those that it names: when one changes, all is read again.
    pub(crate) files: Vec<PathBuf>,
    /// How many documents the file has.
    documents: usize,
}

impl Config {
    pub(crate) fn load(args: &UpArgs, environment: &Environment) -> Outcome<Self> {
        let file = choose_file(args, environment);
        let mut resources = match &file {
            Some(file) => read(file)?,
            None => Vec::new(),
        };
        let documents = resources.len();
        shorthand::from_environment(&mut resources, environment)?;
        shorthand::from_flags(&mut resources, args)?;
        for setting in &args.set {
            set::apply(&mut resources, setting)?;
        }
        shorthand::choose_aliases(node_mut(&mut resources), args.triton_ports);
        check(&resources)?;
        check_admin(&mut resources)?;
        let mut files: Vec<PathBuf> = file.iter().cloned().collect();
        files.extend(reload::secret_files(&resources));
        secret::look_up(&mut resources, environment)?;
        Ok(Self {
            file,
            files,
            documents,
            node: node_mut(&mut resources).clone(),
            resources,
        })
    }

    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (&str, &UpstreamSpec)> {
        self.resources
            .iter()
            .filter_map(|resource| match &resource.spec {
                Spec::Upstream(spec) => Some((resource.metadata.name.as_str(), spec)),
                Spec::Node(_) | Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => None,
            })
    }
}

fn choose_file(args: &UpArgs, environment: &Environment) -> Option<PathBuf> {
    let named = args.config.as_ref().or(environment.config.as_ref());
    named.cloned().or_else(|| {
        let default = Path::new(DEFAULT_FILE);
        default.is_file().then(|| default.to_owned())
    })
}

/// Every problem of the file is told, not only the first.
fn read(file: &Path) -> Outcome<Vec<Resource>> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("configuration `{name}` cannot be read: {error}"))
            .hint("name the file with --config, or start without one: kapok up --model-repo DIR")
    })?;
    let mut resources = parse_documents(&text, &name).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\n       ")).hint(format!("correct `{name}` and start again"))
    })?;
    if let Some(job) = resources
        .iter()
        .find(|resource| matches!(resource.spec, Spec::Job(_)))
    {
        return Err(Failure::usage(format!(
            "configuration `{name}` has the Job `{}`, which is work and no part of a node",
            job.metadata.name
        ))
        .hint("put it into a file of its own, and submit it: kapok submit -f job.yaml"));
    }
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    for resource in &mut resources {
        anchor(resource, folder);
    }
    let nodes = resources
        .iter()
        .filter(|resource| matches!(resource.spec, Spec::Node(_)))
        .count();
    if nodes > 1 {
        return Err(Failure::usage(format!(
            "configuration `{name}` has {nodes} documents of kind `Node`"
        ))
        .hint("a process is one node: keep one of them"));
    }
    Ok(resources)
}

/// What the file's reader checks holds for flags and variables too.
fn check(resources: &[Resource]) -> Outcome {
    for resource in resources {
        if let Some(problem) = resource.validate().first() {
            let kind = resource.spec.kind();
            let name = &resource.metadata.name;
            return Err(Failure::usage(format!("{kind} `{name}`: {problem}")).hint(
                "correct the flag, the variable or the file; `kapok up --help` has examples",
            ));
        }
    }
    Ok(())
}

/// The admin port shows every request's record and takes orders: others reach it only with a key.
fn check_admin(resources: &mut Vec<Resource>) -> Outcome {
    let opens_admin =
        |resource: &Resource| matches!(&resource.spec, Spec::Key(key) if key.models.is_none());
    let admin = node_mut(resources).admin;
    if admin.ip().is_loopback() || resources.iter().any(opens_admin) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the admin address `{admin}` is not loopback, and no `Key` guards it"
    ))
    .hint(
        "bind it to loopback (--admin 127.0.0.1:8080), or add a `Key` without `models` to the file",
    ))
}

/// The etcd that a resource learns from or registers in.
fn etcd_mut(resource: &mut Resource) -> Option<&mut EtcdSpec> {
    match &mut resource.spec {
        Spec::Node(node) => Some(&mut node.register.as_mut()?.etcd),
        Spec::Upstream(upstream) => match &mut upstream.discovery {
            Some(DiscoverySpec::Etcd(etcd)) => Some(etcd),
            _ => None,
        },
        Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => None,
    }
}

/// Paths in a file are relative to the file, wherever kapok is started from.
fn anchor(resource: &mut Resource, folder: &Path) {
    if let Some(etcd) = etcd_mut(resource) {
        for file in etcd.tls.files_mut() {
            *file = folder.join(&*file);
        }
        if let Some(protocol::resource::Secret::File(file)) = &mut etcd.password {
            *file = folder.join(&*file);
        }
    }
    match &mut resource.spec {
        Spec::Node(node) => {
            for repository in &mut node.model_repositories {
                *repository = folder.join(&*repository);
            }
            for secret in node.otlp.headers.values_mut() {
                if let protocol::resource::Secret::File(file) = secret {
                    *file = folder.join(&*file);
                }
            }
            if let Some(data) = &mut node.data_dir {
                *data = folder.join(&*data);
            }
        }
        Spec::Upstream(upstream) => {
            if let Some(protocol::resource::Secret::File(file)) = &mut upstream.api_key {
                *file = folder.join(&*file);
            }
            let process = upstream.process.as_mut();
            if let Some(working_dir) = process.and_then(|process| process.working_dir.as_mut()) {
                *working_dir = folder.join(&*working_dir);
            }
            if let Some(DiscoverySpec::File(file)) = &mut upstream.discovery {
                *file = folder.join(&*file);
            }
        }
        Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => {}
    }
}

/// The one node, made when nobody wrote it down.
fn node_mut(resources: &mut Vec<Resource>) -> &mut NodeSpec {
    let is_node = |resource: &Resource| matches!(resource.spec, Spec::Node(_));
    let index = resources.iter().position(is_node).unwrap_or_else(|| {
        resources.push(Resource {
            metadata: named("node"),
            spec: Spec::Node(NodeSpec::default()),
        });
        resources.len() - 1
    });
    match &mut resources[index].spec {
        Spec::Node(node) => node,
        Spec::Upstream(_) | Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => {
            unreachable!("the index was found by this very variant")
        }
    }
}

fn upstream_mut<'a>(resources: &'a mut [Resource], name: &str) -> Option<&'a mut UpstreamSpec> {
    resources
        .iter_mut()
        .find_map(|resource| match &mut resource.spec {
            Spec::Upstream(spec) if resource.metadata.name == name => Some(spec),
            Spec::Upstream(_) | Spec::Node(_) | Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => {
                None
            }
        })
}

fn named(name: &str) -> Metadata {
    Metadata {
        name: name.to_owned(),
        ..Metadata::default()
    }
}

#[cfg(test)]
mod tests;
