//! A job in the queue's words, and the queue's reasons in a job's.

use std::collections::BTreeSet;

use protocol::resource::{JobPriority, JobSpec, RegionPolicy};
use scheduler::Request;
use scheduler::queue::{self, Level, Priority, Region, Wait};

/// What the queue is asked for.
pub(crate) fn queued(number: u64, spec: &JobSpec, submitted_ms: u64) -> queue::Job {
    let resources = &spec.resources;
    let gpus = resources.gpu_count();
    let request = Request {
        cpu_milli: resources.cpu.milli(),
        memory_mib: resources.memory.mebibytes(),
        gpus,
        gpu_milli: if gpus > 0 { resources.gpu_milli() } else { 0 },
        mig: resources.mig_profile.clone(),
        models: resources
            .gpu_models
            .iter()
            .cloned()
            .collect::<BTreeSet<_>>(),
        ..Request::default()
    };
    let millis = |seconds: u64| seconds.saturating_mul(1_000);
    queue::Job {
        tenant: spec.tenant.clone(),
        gang: spec.gang,
        priority: match spec.priority {
            JobPriority::CostOptimized => Priority::CostOptimized,
            JobPriority::Realtime => Priority::Realtime,
        },
        qos: Level::try_from(spec.qos_level).unwrap_or_default(),
        region: match (&spec.region, spec.region_policy) {
            (None, _) => Region::Anywhere,
            (Some(region), RegionPolicy::Required) => Region::Required(region.clone()),
            (Some(region), RegionPolicy::Preferred) => Region::Preferred(region.clone()),
        },
        device_memory_mib: resources
            .device_memory
            .map_or(0, |memory| memory.mebibytes()),
        deadline_ms: spec
            .deadline_seconds
            .map(|seconds| submitted_ms.saturating_add(millis(seconds))),
        expected_ms: spec.expected_seconds.map(millis),
        preemptible: spec.is_preemptible(),
        checkpoint_ms: spec.checkpoint_interval_seconds.map(millis),
        ..queue::Job::new(number, request)
    }
}

/// Why it waits, with other jobs by their ids.
pub(crate) fn waits(wait: &Wait, gang: u32, name: impl Fn(queue::JobId) -> String) -> String {
    match wait {
        Wait::Reserved { head } => {
            format!("the room is kept for job `{}`, which has waited longer", name(*head))
        }
        Wait::WaitingForPreemptedPods { jobs } => {
            let jobs: Vec<_> = jobs.iter().map(|job| format!("`{}`", name(*job))).collect();
            format!("it has its place when {} have stopped", jobs.join(", "))
        }
        Wait::TopologyPlacementFailed { fit } if gang > 1 => {
            format!("{fit} of its {gang} members fit now, and all start together")
        }
        Wait::TopologyPlacementFailed { .. } => {
            "no node has enough CPU, memory or GPUs free now".to_owned()
        }
        Wait::NoMatchingFlavor => {
            "no node could take it even if nothing else ran: it asks for more CPU, memory or GPUs than any node has, or for another region or model of GPU"
                .to_owned()
        }
        other => other.to_string(),
    }
}
