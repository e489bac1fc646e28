//! Jobs of this node: the rooms `jobs`, `gateway`, `runtime` and `device` do not know each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Tasks};
use bytes::Bytes;
use gateway::server::{Answer, JobLog, JobQuery, JobServer};
use jobs::executor::{Executor, LogQuery, LogStream};
use jobs::local::{Hardware, Local};
use jobs::{Filter, Jobs, Metrics};
use protocol::resource::{Job, Spec, Submission};
use runtime::Runtime;
use serde_json::Value;
use telemetry::metrics::Registry;

use super::gpus::Gpus;
use super::job_models::JobModels;
use crate::config::{Config, HANDOVER};
use crate::exit::{Failure, Outcome};
use crate::memory::{cgroup_limit, meminfo};

/// What jobs need of the rest of the node.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) models: &'a Runtime,
    pub(super) gpus: &'a Gpus,
    pub(super) registry: &'a Registry,
    pub(super) clock: Clock,
    /// Stopped after the requests that are answered.
    pub(super) tasks: Tasks,
    /// The public address.
    pub(super) endpoint: String,
    /// Where jobs run, if not here.
    pub(super) cluster: Option<Arc<dyn Executor>>,
}

/// Jobs, as the gateway wants them.
#[derive(Debug)]
pub(super) struct LocalJobs {
    jobs: Jobs,
    /// Where logs are, if nobody said where to keep them.
    _temporary: Option<Temporary>,
}

/// A folder that goes with the process.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left is in the system's folder for what may go.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl LocalJobs {
    pub(super) fn start(config: &Config, mut around: Around<'_>) -> Outcome<Self> {
        let node = &config.node;
        let temporary = match &node.data_dir {
            Some(_) => None,
            None => {
                let name = format!("kapok-jobs-{}", std::process::id());
                Some(Temporary(std::env::temp_dir().join(name)))
            }
        };
        let folder = node.data_dir.as_deref().map(|data| data.join("jobs"));
        let logs = match (&folder, &temporary) {
            (Some(folder), _) => folder.join("logs"),
            (None, Some(temporary)) => temporary.0.clone(),
            (None, None) => PathBuf::new(),
        };
        let executor = match around.cluster.take() {
            Some(cluster) => cluster,
            None => local(config, &around, &logs)?,
        };
        Ok(Self {
            jobs: Jobs::start(jobs::Parts {
                config: jobs::Config::from(&node.jobs),
                folder,
                executors: vec![executor],
                clock: around.clock,
                tasks: around.tasks,
                metrics: Metrics::register(around.registry),
            }),
            _temporary: temporary,
        })
    }
}

/// The executor that runs jobs on this node.
fn local(config: &Config, around: &Around<'_>, logs: &Path) -> Outcome<Arc<dyn Executor>> {
    let local = Local::new(jobs::local::Parts {
        hardware: hardware(config, around.gpus),
        models: Arc::new(JobModels {
            models: around.models.clone(),
            endpoint: around.endpoint.clone(),
        }),
        log_bytes_max: config.node.jobs.log_mb.saturating_mul(1 << 20),
        hidden: &[HANDOVER],
        keeper: process::Keeper::default(),
        tasks: around.tasks.clone(),
        logs: logs.to_owned(),
    })
    .map_err(|error| {
        let logs = logs.display();
        Failure::failed(format!("jobs cannot be kept in `{logs}`: {error}"))
            .hint("name a folder that can be written with --data DIR")
    })?;
    Ok(Arc::new(local))
}

fn hardware(config: &Config, gpus: &Gpus) -> Hardware {
    let named = config
        .resources
        .iter()
        .find_map(|resource| match &resource.spec {
            Spec::Node(_) => Some(resource.metadata.name.clone()),
            _ => None,
        });
    let cores = u32::try_from(base::core_budget().get()).unwrap_or(u32::MAX);
    let node = scheduler::Node {
        name: named.unwrap_or_else(|| "node".to_owned()),
        cpu_milli: cores.saturating_mul(1_000),
        memory_mib: memory_mib(),
        region: config.node.region.clone().unwrap_or_default(),
        ..scheduler::Node::default()
    };
    Hardware::new(node, gpus.whole())
}

/// What the machine has, or the cgroup allows; models and the gateway itself live in it too, so an eighth is left to them.
fn memory_mib() -> u32 {
    let all = meminfo("MemTotal:").into_iter().chain(cgroup_limit());
    // A machine that does not tell is taken for a small one.
    let all = all.min().map_or(4096, |bytes| bytes >> 20);
    u32::try_from(all - all / 8).unwrap_or(u32::MAX)
}

impl JobServer for LocalJobs {
    fn submit(&self, mut submission: Submission) -> Answer<'_, Job> {
        Box::pin(async move {
            // Where kapok was started is no place that a client could know.
            if let Some(folder) = &submission.spec.working_dir
                && !folder.is_absolute()
            {
                let here = std::path::absolute(Path::new(folder)).ok();
                submission.spec.working_dir = here.or(submission.spec.working_dir);
            }
            self.jobs.submit(submission).await
        })
    }

    fn check(&self, submission: Submission) -> Answer<'_, Value> {
        Box::pin(self.jobs.check(submission))
    }

    fn list(&self, query: JobQuery) -> Answer<'_, Vec<Job>> {
        let filter = Filter {
            state: query.state,
            tenant: query.tenant,
            limit: query.limit,
        };
        Box::pin(self.jobs.list(filter))
    }

    fn get<'a>(&'a self, id: &'a str, wait: Option<Duration>) -> Answer<'a, Job> {
        Box::pin(async move {
            match wait {
                Some(wait) => self.jobs.wait(id, wait).await,
                None => self.jobs.get(id).await,
            }
        })
    }

    fn cancel<'a>(&'a self, id: &'a str) -> Answer<'a, Job> {
        Box::pin(self.jobs.cancel(id))
    }

    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Value> {
        Box::pin(self.jobs.explain(id))
    }

    fn logs<'a>(
        &'a self,
        id: &'a str,
        tail: Option<usize>,
        follow: bool,
    ) -> Answer<'a, Box<dyn JobLog>> {
        Box::pin(async move {
            let log = self.jobs.logs(id, LogQuery { tail, follow }).await?;
            Ok(Box::new(Log(log)) as Box<dyn JobLog>)
        })
    }

    fn nodes(&self) -> Answer<'_, Value> {
        Box::pin(self.jobs.nodes())
    }
}

struct Log(Box<dyn LogStream>);

impl JobLog for Log {
    fn next(&mut self) -> Answer<'_, Option<Bytes>> {
        self.0.next()
    }
}
