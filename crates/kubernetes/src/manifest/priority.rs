//! The classes that decide whose pods a cluster looks at first.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use protocol::resource::{JobPriority, JobSpec};

use super::MANAGER;

/// Above every `cost_optimized` class, and a tenth of what Kubernetes leaves to its users.
const REALTIME: i32 = 100_000_000;

/// Between two levels of one priority.
const STEP: i32 = 1_000;

pub(super) fn class_name(spec: &JobSpec) -> String {
    name(spec.priority, spec.qos_level)
}

fn name(priority: JobPriority, level: u8) -> String {
    let priority = match priority {
        JobPriority::Realtime => "realtime",
        JobPriority::CostOptimized => "cost-optimized",
    };
    format!("kapok-{priority}-{level}")
}

/// One class for each priority and level. They put pods in order and evict nobody: who is stopped for whom is decided
/// in kapok's queue, which knows what a restart costs.
pub fn classes() -> Vec<PriorityClass> {
    let mut all = Vec::new();
    for (priority, base) in [
        (JobPriority::CostOptimized, 0),
        (JobPriority::Realtime, REALTIME),
    ] {
        for level in 1..=5_u8 {
            all.push(PriorityClass {
                metadata: ObjectMeta {
                    name: Some(name(priority, level)),
                    labels: Some(
                        [(
                            "app.kubernetes.io/managed-by".to_owned(),
                            MANAGER.to_owned(),
                        )]
                        .into(),
                    ),
                    ..ObjectMeta::default()
                },
                value: base + STEP * i32::from(level),
                preemption_policy: Some("Never".to_owned()),
                global_default: Some(false),
                description: Some(format!(
                    "jobs of priority {} and QoS level {level}",
                    priority.name()
                )),
            });
        }
    }
    all
}
