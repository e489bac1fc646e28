use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderName;
use protocol::resource::{FallbackReason, HedgeSpec, RescueSpec, RetrySpec, RouteSpec};
use routing::Budget;
use routing::Draw;

use super::pool::Pool;
use crate::upstream::Upstream;

/// A route with more targets has them in a pool: who is alive is kept in as many bits.
pub(crate) const BRANCHES_MAX: usize = 64;

/// Somebody who can answer.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The models in this process.
    Local,
    Upstream(Arc<Upstream>),
}

/// What made targets candidates.
#[derive(Debug, Clone, Default)]
pub(crate) enum Why {
    /// The Route of this name.
    Route(Arc<str>),
    /// They list the model.
    Listed,
    /// They list nothing, so they may have anything.
    #[default]
    CatchAll,
}

/// Requests for one model name: by weight to a branch, and there by policy to a member.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Shared by the names of one route.
    pub(crate) plan: Arc<Plan>,
    /// Of its own: a counter shared between groups would beat with the order of other groups' requests.
    pub(crate) turns: Turns,
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) why: Why,
    pub(crate) branches: Vec<Branch>,
    /// In this order when no branch can answer.
    pub(crate) fallback: Vec<Branch>,
    pub(crate) rules: Rules,
    pub(crate) on_failure: OnFailure,
    /// Discovered pools that have no server yet.
    pub(crate) awaited: Vec<Arc<str>>,
    /// How long requests wait while nobody can answer; none if nobody has said so.
    pub(crate) hold: Option<Duration>,
    /// Shared by all requests of the plan, and taken over by the plan that takes its place.
    pub(crate) budget: Arc<Budget>,
}

/// What a route says of failures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OnFailure {
    pub(crate) retry: RetrySpec,
    pub(crate) hedge: Option<HedgeSpec>,
    pub(crate) rescue: RescueSpec,
}

impl From<&RouteSpec> for OnFailure {
    fn from(spec: &RouteSpec) -> Self {
        Self {
            retry: spec.retry,
            hedge: spec.hedge,
            rescue: spec.rescue,
        }
    }
}

/// One target of a route.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) name: Arc<str>,
    pub(crate) weight: u32,
    /// What the model is called there, if not as the client calls it.
    pub(crate) model: Option<Arc<str>>,
    pub(crate) to: To,
    pub(crate) serves: Serves,
}

/// What a target is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serves {
    /// Whatever comes, in its turn.
    pub(crate) any: bool,
    /// What was longer than the context of whoever was asked.
    pub(crate) longer: bool,
}

impl Serves {
    pub(crate) const ANY: Self = Self {
        any: true,
        longer: false,
    };

    pub(super) fn of(reasons: &[FallbackReason]) -> Self {
        Self {
            any: reasons.contains(&FallbackReason::Failure),
            longer: reasons.contains(&FallbackReason::ContextLength),
        }
    }
}

#[derive(Debug)]
pub(crate) enum To {
    Local,
    Pool(Pool),
}

impl Branch {
    fn members(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        match &self.to {
            To::Local => [].iter(),
            To::Pool(pool) => pool.members.iter(),
        }
    }

    /// Whether there is nobody to send to.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.to, To::Pool(pool) if pool.members.is_empty())
    }
}

/// What a route looks at in a request, and when it leaves its region.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Absent when no upstream of the plan has a colour.
    pub(crate) colour: Option<HeaderName>,
    pub(crate) colour_strict: bool,
    /// Absent when no upstream of the plan has a region.
    pub(crate) region: Option<HeaderName>,
    /// Absent when the policy does not care.
    pub(crate) session: Option<HeaderName>,
    /// Whether the policy looks at prompts.
    pub(crate) prompt: bool,
    pub(crate) spill_depth: f32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            colour: None,
            colour_strict: false,
            region: None,
            session: None,
            prompt: false,
            spill_depth: f32::INFINITY,
        }
    }
}

/// Requests so far.
#[derive(Debug, Default)]
pub(crate) struct Turns(AtomicU64);

impl Turns {
    /// Elsewhere in every snapshot: if each began anew, many changes would favour whoever has the first turn.
    pub(crate) fn since(generation: u64) -> Self {
        Self(AtomicU64::new(Draw::new(generation).word() >> 1))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Group {
    pub(crate) fn new(plan: Arc<Plan>, generation: u64) -> Self {
        Self {
            plan,
            turns: Turns::since(generation),
        }
    }

    /// Every upstream that it may send to, those of the fallback last.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.asked().flat_map(Branch::members)
    }

    /// Those of them that may be asked before anybody has refused the request.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let first = self.asked().filter(|branch| branch.serves.any);
        first.flat_map(Branch::members)
    }

    fn asked(&self) -> impl Iterator<Item = &Branch> {
        let sharing = self.plan.branches.iter().filter(|branch| branch.weight > 0);
        sharing.chain(&self.plan.fallback)
    }

    /// Whether somebody is there for what is too long for others.
    pub(crate) fn has_longer(&self) -> bool {
        self.plan.fallback.iter().any(|branch| branch.serves.longer)
    }

    /// What the model is called at one of them, if not as the client calls it.
    pub(crate) fn model_at(&self, upstream: &Arc<Upstream>) -> Option<Arc<str>> {
        let mut branches = self.plan.branches.iter().chain(&self.plan.fallback);
        let branch = branches.find(|branch| match &branch.to {
            To::Local => false,
            To::Pool(pool) => pool
                .members
                .iter()
                .any(|member| Arc::ptr_eq(member, upstream)),
        });
        branch?.model.clone()
    }

    pub(crate) fn has_local(&self) -> bool {
        let branches = self.plan.branches.iter().chain(&self.plan.fallback);
        branches
            .into_iter()
            .any(|branch| matches!(branch.to, To::Local))
    }
}
