//! What a job is on a cluster: pure functions from a job to objects.

mod pods;
mod priority;
mod process;
mod replica;
mod resources;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use jobs::executor::{Run, RunId};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use protocol::ApiError;
use protocol::resource::{JobSpec, KubernetesSpec};
use scheduler::queue::qos::Table;

pub use priority::classes as priority_classes;

/// Who wrote an object, for server-side apply and for people.
pub const MANAGER: &str = "kapok";

/// The label that holds a job's id.
pub const JOB_LABEL: &str = "kapok.dev/job";

const ATTEMPT_LABEL: &str = "kapok.dev/attempt";

/// Of an id, so that attempt and index find room beside it.
const NAME_MAX: usize = 48;

/// Where Kueue looks for its queue.
const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

/// Where models answer, inside of their pods and on their services.
const MODEL_PORT: i32 = 8000;

/// What every object of a cluster's jobs is written with.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    pub cluster: &'a KubernetesSpec,
    pub promises: &'a Table,
    /// They go when it does.
    pub owner: Option<OwnerReference>,
}

/// All objects of one job.
#[derive(Debug, Clone, PartialEq)]
pub enum Objects {
    /// Runs to its end.
    Process(Box<batch::Job>),
    /// Answers until it is deleted.
    Replica(Box<Deployment>, Box<Service>),
}

impl Writer<'_> {
    /// What of a job a cluster cannot do.
    pub fn check(&self, spec: &JobSpec) -> Result<(), ApiError> {
        let refuse = |message: &str| Err(ApiError::invalid(message));
        if spec.batch_size.is_some() {
            return refuse(
                "`batchSize` cannot be set on Kubernetes: write `max_batch_size` in the model's `config.pbtxt`",
            );
        }
        if self.cluster.image.is_none() && (spec.model.is_some() || spec.image.is_none()) {
            return refuse(
                "there is no image to run: name one in `image` of the job, or in `jobs.kubernetes.image` of the Node",
            );
        }
        Ok(())
    }

    /// The objects of a run.
    pub fn objects(&self, run: &Run) -> Objects {
        let metadata = self.metadata(run);
        match &run.job.spec.model {
            None => Objects::Process(Box::new(self.process(run, metadata))),
            Some(model) => {
                let service = replica::service(&run.id, metadata.clone());
                let deployment = self.replica(run, model, metadata);
                Objects::Replica(Box::new(deployment), Box::new(service))
            }
        }
    }

    fn metadata(&self, run: &Run) -> ObjectMeta {
        let mut labels = labels(run);
        if let Some(queue) = &self.cluster.queue_name {
            labels.insert(QUEUE_LABEL.to_owned(), queue.clone());
        }
        let name = run.job.metadata.name.clone();
        ObjectMeta {
            name: Some(object_name(&run.id)),
            namespace: Some(self.cluster.namespace.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([("kapok.dev/name".to_owned(), name)])),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }
}

/// What a run's objects are called: a service's and a pod's host name are one DNS label, of at most 63 letters, and a pod
/// of an indexed job adds its index. The end of an id is what makes it one of a kind.
pub fn object_name(run: &RunId) -> String {
    let id = run.job.replace('.', "-");
    let start = id.len().saturating_sub(NAME_MAX);
    let id = id.get(start..).unwrap_or(&id).trim_matches('-');
    let attempt = run.attempt;
    // A service's name begins with a letter.
    match id.starts_with(|first: char| first.is_ascii_alphabetic()) {
        true => format!("{id}-{attempt}"),
        false => format!("j{id}-{attempt}"),
    }
}

/// Which run an object belongs to, if it is one of ours.
pub fn run_of(metadata: &ObjectMeta) -> Option<RunId> {
    let labels = metadata.labels.as_ref()?;
    Some(RunId {
        job: labels.get(JOB_LABEL)?.clone(),
        attempt: labels.get(ATTEMPT_LABEL)?.parse().ok()?,
    })
}

/// A label selector of one run's pods.
pub fn pods_of(run: &RunId) -> String {
    let labels = selector(run).into_iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(",")
}

/// Where a model's replicas answer.
pub fn endpoint(run: &RunId, namespace: &str) -> String {
    format!("http://{}.{namespace}.svc:{MODEL_PORT}", object_name(run))
}

/// On every object, so that one selector finds them all.
fn labels(run: &Run) -> BTreeMap<String, String> {
    let spec = &run.job.spec;
    let more = [
        ("app.kubernetes.io/managed-by", MANAGER.to_owned()),
        ("kapok.dev/tenant", spec.tenant.clone()),
        ("kapok.dev/priority", spec.priority.name().to_owned()),
        ("kapok.dev/qos-level", spec.qos_level.to_string()),
    ];
    let more = more.map(|(name, value)| (name.to_owned(), value));
    let mut labels = selector(&run.id);
    labels.extend(more);
    labels
}

/// Selects one run's pods and nobody else's.
fn selector(run: &RunId) -> BTreeMap<String, String> {
    BTreeMap::from([
        (JOB_LABEL.to_owned(), run.job.clone()),
        (ATTEMPT_LABEL.to_owned(), run.attempt.to_string()),
    ])
}
