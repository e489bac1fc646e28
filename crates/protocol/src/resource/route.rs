use serde::{Deserialize, Serialize};

use super::failure::{HedgeSpec, RescueSpec, RetrySpec, check_retry};
use super::limits::{self, LimitsSpec, Priority, QueueSpec};
use super::routing::{self, AffinitySpec, CheapestSpec, ColourSpec, RegionSpec, RoutePolicy};
use super::validate::{Findings, is_name, patterns};

/// Which targets answer for which model names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Exact names, or a prefix ending in `*`.
    pub models: Vec<String>,
    /// They share the requests by weight.
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
    /// Asked one after the other when no target can answer, or for what is too long for one, each only once.
    #[serde(default)]
    pub fallback: Vec<RouteFallback>,
    /// How one of a pool's upstreams is chosen.
    #[serde(default)]
    pub policy: RoutePolicy,
    #[serde(default)]
    pub affinity: AffinitySpec,
    #[serde(default)]
    pub cheapest: CheapestSpec,
    #[serde(default)]
    pub colour: ColourSpec,
    #[serde(default)]
    pub region: RegionSpec,
    #[serde(default)]
    pub retry: RetrySpec,
    /// Absent: nobody is asked in advance.
    #[serde(default)]
    pub hedge: Option<HedgeSpec>,
    #[serde(default)]
    pub rescue: RescueSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTarget {
    /// The name of an `Upstream` or of a pool, or `local` for the models in this process.
    pub upstream: String,
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// What the model is called there, if not as the client calls it.
    #[serde(default)]
    pub model: Option<String>,
}

fn default_weight() -> u32 {
    1
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteFallback {
    /// As in a target.
    pub upstream: String,
    /// Another model may answer.
    #[serde(default)]
    pub model: Option<String>,
    /// What it is asked for.
    #[serde(default = "failures", rename = "for")]
    pub reasons: Vec<FallbackReason>,
}

/// Why a fallback is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FallbackReason {
    /// No target can answer.
    Failure,
    /// Whoever was asked refused the request with 400 as longer than its model's context.
    ContextLength,
}

fn failures() -> Vec<FallbackReason> {
    vec![FallbackReason::Failure]
}

pub(super) fn check(spec: &RouteSpec, found: &mut Findings) {
    patterns(&spec.models, "spec.models", found);
    check_retry(&spec.retry, found);
    if let Some(hedge) = &spec.hedge {
        found.positive(hedge.after_ms, "spec.hedge.afterMs");
    }
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
            "the name of an Upstream or a pool, or `local`".to_owned()
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
    for (index, fallback) in spec.fallback.iter().enumerate() {
        let path = format!("spec.fallback.{index}.upstream");
        found.check(is_name(&fallback.upstream), &path, || {
            "the name of an Upstream or a pool, or `local`".to_owned()
        });
        let targets = &spec.targets;
        check_reasons(fallback, targets, &format!("spec.fallback.{index}"), found);
    }
    let said = spec.targets.iter().map(|target| ("targets", &target.model));
    let said = said.chain(spec.fallback.iter().map(|last| ("fallback", &last.model)));
    for (list, model) in said {
        let exact = model
            .as_ref()
            .is_none_or(|model| !model.is_empty() && !model.contains('*'));
        found.check(exact, &format!("spec.{list}"), || {
            "`model` is the exact name of one model".to_owned()
        });
    }
    routing::check(spec, found);
}

fn check_reasons(
    fallback: &RouteFallback,
    targets: &[RouteTarget],
    path: &str,
    found: &mut Findings,
) {
    let reasons = &fallback.reasons;
    found.check(!reasons.is_empty(), &format!("{path}.for"), || {
        "say what it is asked for: `failure`, `contextLength` or both".to_owned()
    });
    if !reasons.contains(&FallbackReason::ContextLength) {
        return;
    }
    let name = &fallback.upstream;
    let path = format!("{path}.upstream");
    found.check(name != "local", &path, || {
        "what an upstream refused as too long cannot be answered by `local`; name an Upstream or a pool".to_owned()
    });
    let target = targets.iter().any(|target| target.upstream == *name);
    found.check(!target, &path, || {
        format!("no upstream sees a request twice, and `{name}` is a target; name another Upstream, perhaps with the same url")
    });
}
