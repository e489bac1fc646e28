//! A job as a resource of the cluster: written for people and their tools, and never read back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use base::Clock;
use jobs::executor::{Ended, How, Progress, Run, RunId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use protocol::resource::{
    API_VERSION, ConditionType, JobState, JobStatus, KubernetesSpec, Timestamp, reason,
};
use serde_json::json;

use crate::crd::{GROUP, PLURAL};
use crate::error::code;
use crate::manifest::JOB_LABEL;

/// Kueue's word for a workload whose pods do not run yet.
const WAITING: &str = "WaitForStart";

#[derive(Debug)]
pub(crate) struct Mirror {
    api: Api<DynamicObject>,
    resource: ApiResource,
    clock: Clock,
    /// The definition was never applied: there is nothing to write to.
    absent: AtomicBool,
    /// Of jobs that run.
    shown: Mutex<BTreeMap<String, JobStatus>>,
}

impl Mirror {
    pub(crate) fn new(client: Client, cluster: &KubernetesSpec, clock: Clock) -> Self {
        let version = API_VERSION.rsplit('/').next().unwrap_or(API_VERSION);
        let resource = ApiResource {
            group: GROUP.to_owned(),
            version: version.to_owned(),
            api_version: API_VERSION.to_owned(),
            kind: "Job".to_owned(),
            plural: PLURAL.to_owned(),
        };
        Self {
            api: Api::namespaced_with(client, &cluster.namespace, &resource),
            resource,
            clock,
            absent: AtomicBool::new(false),
            shown: Mutex::new(BTreeMap::new()),
        }
    }

    /// Shows a job that starts; what belongs to it then goes with it.
    pub(crate) async fn show(&self, run: &Run) -> Option<OwnerReference> {
        if self.absent.load(Ordering::Relaxed) {
            return None;
        }
        let owner = match self.put(run).await {
            Ok(object) => OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: "Job".to_owned(),
                name: object.name_any(),
                uid: object.uid()?,
                ..OwnerReference::default()
            },
            Err(error) if code(&error) == Some(404) => {
                self.absent.store(true, Ordering::Relaxed);
                tracing::info!("jobs.kapok.dev is not defined here: jobs are not shown");
                return None;
            }
            Err(error) => {
                complain(&run.id.job, &error);
                return None;
            }
        };
        let mut status = run.job.status.clone();
        status.state = JobState::Starting;
        let now = self.now();
        status.set(
            ConditionType::Admitted,
            true,
            (reason::ADMITTED, "it has its place"),
            now,
        );
        if status.holds(ConditionType::Finished) {
            status.set(
                ConditionType::Finished,
                false,
                (reason::RESTARTED, "it runs again"),
                now,
            );
        }
        self.write(&run.id.job, &status).await;
        self.shown.lock().insert(run.id.job.clone(), status);
        Some(owner)
    }

    async fn put(&self, run: &Run) -> Result<DynamicObject, kube::Error> {
        let name = &run.id.job;
        let mut object = DynamicObject::new(name, &self.resource);
        object.data = json!({"spec": run.job.spec});
        let mut labels = run.job.metadata.labels.clone();
        labels.insert(JOB_LABEL.to_owned(), name.clone());
        object.metadata.labels = Some(labels);
        match self.api.create(&PostParams::default(), &object).await {
            // An earlier attempt of it.
            Err(error) if code(&error) == Some(409) => self.api.get(name).await,
            other => other,
        }
    }

    pub(crate) async fn tell(&self, run: &RunId, progress: &Progress) {
        let now = self.now();
        let status = {
            let mut shown = self.shown.lock();
            let Some(status) = shown.get_mut(&run.job) else {
                return;
            };
            apply(status, progress, now);
            let status = status.clone();
            if status.state.is_final() {
                shown.remove(&run.job);
            }
            status
        };
        self.write(&run.job, &status).await;
    }

    async fn write(&self, job: &str, status: &JobStatus) {
        let patch = Patch::Merge(json!({"status": status}));
        let written = self
            .api
            .patch_status(job, &PatchParams::default(), &patch)
            .await;
        if let Err(error) = written {
            complain(job, &error);
        }
    }

    pub(crate) async fn forget(&self, job: &str) {
        self.shown.lock().remove(job);
        if self.absent.load(Ordering::Relaxed) {
            return;
        }
        match self.api.delete(job, &DeleteParams::background()).await {
            Err(error) if code(&error) != Some(404) => complain(job, &error),
            _ => {}
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.wall().into()
    }
}

/// The job runs all the same.
fn complain(job: &str, error: &kube::Error) {
    let error = base::chain(error);
    tracing::debug!(job, error, "its resource cannot be written");
}

fn apply(status: &mut JobStatus, progress: &Progress, now: Timestamp) {
    let (state, reason, message) = match progress {
        Progress::Starting(why) => (JobState::Starting, WAITING, why.as_str()),
        Progress::Ready { endpoint } => {
            status.started_at.get_or_insert(now);
            status.endpoint.clone_from(endpoint);
            (JobState::Running, reason::PODS_READY, "all members run")
        }
        Progress::Ended(Ended { how, end, message }) => {
            status.finished_at = Some(now);
            status.end.clone_from(end);
            let (state, reason) = match how {
                How::Succeeded => (JobState::Succeeded, reason::SUCCEEDED),
                How::Failed => (JobState::Failed, reason::FAILED),
                How::CannotStart => (JobState::Failed, reason::CANNOT_START),
                How::Stopped => (JobState::Cancelled, reason::CANCELLED),
                How::OutOfMemory => (JobState::Failed, reason::OUT_OF_MEMORY),
                How::Lost => (JobState::Failed, reason::NODE_STOPPED),
            };
            (state, reason, message.as_str())
        }
    };
    let kind = match state.is_final() {
        true => ConditionType::Finished,
        false => ConditionType::PodsReady,
    };
    status.set(kind, state != JobState::Starting, (reason, message), now);
    status.state = state;
    status.reason = reason.to_owned();
    status.message = message.to_owned();
}
