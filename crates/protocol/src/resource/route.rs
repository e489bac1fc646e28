use serde::{Deserialize, Serialize};

use super::limits::{self, LimitsSpec, Priority, QueueSpec};
use super::validate::{Findings, is_name, patterns};

/// Which targets answer for which model names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Exact names, or a prefix ending in `*`.
    pub models: Vec<String>,
    pub targets: Vec<RouteTarget>,
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
    #[serde(default)]
    pub queue: QueueSpec,
    /// The class of requests that claim none. What a route says, its requests may claim, whatever their key's class.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// While no target is ready: how long a request waits for one. Absent means ten seconds for targets that are
    /// starting or loading, and no time for others; 0 refuses at once.
    #[serde(default)]
    pub hold_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTarget {
    /// The name of an `Upstream`, or `local` for the models in this process.
    pub upstream: String,
    #[serde(default = "default_weight")]
    pub weight: u32,
}

fn default_weight() -> u32 {
    1
}

pub(super) fn check(spec: &RouteSpec, found: &mut Findings) {
    patterns(&spec.models, "spec.models", found);
    found.check(!spec.targets.is_empty(), "spec.targets", || {
        "name at least one target".to_owned()
    });
    let all_zero = !spec.targets.is_empty() && spec.targets.iter().all(|target| target.weight == 0);
    found.check(!all_zero, "spec.targets", || {
        "every weight is 0, so nothing would be answered".to_owned()
    });
    for (index, target) in spec.targets.iter().enumerate() {
        let path = format!("spec.targets.{index}.upstream");
        found.check(is_name(&target.upstream), &path, || {
            "the name of an Upstream, or `local`".to_owned()
        });
        let earlier = spec.targets.iter().take(index);
        let twice = earlier
            .filter(|earlier| earlier.upstream == target.upstream)
            .count()
            > 0;
        found.check(!twice, &path, || {
            format!("`{}` is named twice; add up the weights", target.upstream)
        });
    }
    if let Some(limits) = &spec.limits {
        limits::check(limits, found);
    }
    limits::check_queue(&spec.queue, found);
}
