//! What one object's status says.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use protocol::resource::JobEnd;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not all members run, and what for.
    Waiting(String),
    Ready,
    /// It is being deleted.
    Leaving,
    Succeeded,
    Failed(String),
}

/// Kubernetes says `Complete` and `Failed` of a job when its last pod has ended.
pub(super) fn of_process(job: &Job) -> Phase {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let holds = |kind: &str| {
        let mut all = conditions.into_iter().flatten();
        all.find(|one| one.type_ == kind && one.status == "True")
    };
    if holds("Complete").is_some() {
        return Phase::Succeeded;
    }
    if let Some(failed) = holds("Failed") {
        let words = [failed.reason.as_deref(), failed.message.as_deref()];
        let words: Vec<_> = words.into_iter().flatten().collect();
        return Phase::Failed(words.join(": "));
    }
    if job.metadata.deletion_timestamp.is_some() {
        return Phase::Leaving;
    }
    let spec = job.spec.as_ref();
    if spec.and_then(|spec| spec.suspend).unwrap_or(false) {
        return Phase::Waiting("Kueue has not admitted it".to_owned());
    }
    let members = spec.and_then(|spec| spec.parallelism).unwrap_or(1);
    let count = |count: Option<i32>| count.unwrap_or(0);
    let running = status.map_or(0, |status| count(status.ready) + count(status.succeeded));
    if running >= members {
        return Phase::Ready;
    }
    Phase::Waiting(format!("{running} of {members} pods run"))
}

pub(super) fn of_replica(replica: &Deployment) -> Phase {
    if replica.metadata.deletion_timestamp.is_some() {
        return Phase::Leaving;
    }
    let wanted = replica.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or(1);
    let status = replica.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    if ready >= wanted {
        return Phase::Ready;
    }
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let stuck = conditions.find(|one| {
        one.status == "False" && one.type_ == "Progressing" || one.type_ == "ReplicaFailure"
    });
    match stuck.and_then(|one| one.message.clone()) {
        Some(message) => Phase::Waiting(message),
        None => Phase::Waiting(format!("{ready} of {wanted} replicas answer")),
    }
}

/// What is remembered of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PodPhase {
    trouble: Option<String>,
    end: Option<JobEnd>,
    out_of_memory: bool,
}

impl PodPhase {
    pub(super) fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else {
            return Self::default();
        };
        let containers = || status.container_statuses.iter().flatten();
        let unplaced = status.conditions.iter().flatten();
        let mut unplaced =
            unplaced.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
        Self {
            trouble: containers()
                .find_map(waits)
                .or_else(|| unplaced.next()?.message.clone()),
            end: containers().find_map(end),
            out_of_memory: containers().any(out_of_memory),
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    pub(super) fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    pub(super) fn end(&self) -> Option<JobEnd> {
        self.end.clone()
    }
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or("waiting");
    // Every pod is in these for a moment.
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    Some(match &waiting.message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    })
}

fn out_of_memory(container: &ContainerStatus) -> bool {
    let ended = container.state.as_ref();
    let ended = ended.and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled"))
}

fn end(container: &ContainerStatus) -> Option<JobEnd> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    // The runtime reports a signal as 128 and its number, and rarely in the field for it.
    let by_code = (ended.exit_code > 128).then(|| ended.exit_code - 128);
    let signal = ended.signal.filter(|signal| *signal != 0).or(by_code);
    Some(JobEnd {
        exit_code: signal.is_none().then_some(ended.exit_code),
        signal,
    })
}
