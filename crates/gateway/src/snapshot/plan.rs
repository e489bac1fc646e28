//! What a route, or the absence of one, makes of its upstreams.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::nearest;
use protocol::resource::{RouteFallback, RoutePolicy, RouteSpec, RouteTarget};

use super::group::{BRANCHES_MAX, Serves};
use super::pool::{Around, Pool};
use super::{Branch, Group, LOCAL, OnFailure, Plan, Rules, Snapshot, To, Why, invalid};
use routing::Budget;

use crate::Error;
use crate::upstream::Upstream;

/// Upstreams by their pools' names.
#[derive(Debug)]
pub(super) struct Pools(HashMap<String, Vec<Arc<Upstream>>>);

impl Pools {
    /// Those of templates are there without a member too.
    pub(super) fn new<'a>(
        upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
        templates: impl Iterator<Item = &'a Arc<str>>,
    ) -> Result<Self, Error> {
        let empty = templates.map(|name| (name.to_string(), Vec::new()));
        let mut pools: HashMap<String, Vec<Arc<Upstream>>> = empty.collect();
        for upstream in upstreams.values() {
            let Some(pool) = &upstream.spec.pool else {
                continue;
            };
            if upstreams.contains_key(pool.as_str()) {
                let reason = format!("pool `{pool}` has the name of an upstream");
                return Err(invalid("Upstream", &upstream.name, reason));
            }
            pools
                .entry(pool.clone())
                .or_default()
                .push(Arc::clone(upstream));
        }
        Ok(Self(pools))
    }
}

impl Snapshot {
    pub(super) fn plan(&self, route: &str, spec: &RouteSpec, pools: &Pools) -> Result<Plan, Error> {
        if spec.targets.len() > BRANCHES_MAX {
            let reason = format!("has more than {BRANCHES_MAX} targets; name a pool of upstreams");
            return Err(invalid("Route", route, reason));
        }
        if spec.targets.iter().all(|target| target.weight == 0) {
            return Err(invalid("Route", route, "no target has a weight above 0"));
        }
        let branch = |name: &str, model: &Option<String>, (weight, serves)| {
            Ok(Branch {
                name: name.into(),
                weight,
                model: model.as_deref().map(Arc::from),
                to: self.to(route, name, spec, pools)?,
                serves,
            })
        };
        let target = |target: &RouteTarget| {
            let share = (target.weight, Serves::ANY);
            branch(&target.upstream, &target.model, share)
        };
        let last = |last: &RouteFallback| {
            let share = (1, Serves::of(&last.reasons));
            branch(&last.upstream, &last.model, share)
        };
        let branches: Vec<Branch> = spec.targets.iter().map(target).collect::<Result<_, _>>()?;
        let fallback: Vec<Branch> = spec.fallback.iter().map(last).collect::<Result<_, _>>()?;
        let rules = rules(spec, branches.iter().chain(&fallback));
        let all = branches.iter().chain(&fallback);
        let awaited = all.filter(|branch| branch.serves.any && branch.is_empty());
        Ok(Plan {
            awaited: awaited.map(|branch| Arc::clone(&branch.name)).collect(),
            hold: spec.hold_ms.map(Duration::from_millis),
            why: Why::Route(route.into()),
            branches,
            fallback,
            rules,
            on_failure: OnFailure::from(spec),
            budget: self.budget(&format!("route {route}")),
        })
    }

    /// The one that requests have drawn on so far, so that a change of configuration does not fill it.
    fn budget(&self, key: &str) -> Arc<Budget> {
        self.budgets_before.get(key).cloned().unwrap_or_default()
    }

    /// Upstreams that nobody routes are one pool, with the defaults of a route.
    /// `awaited` are those that will be, and are not discovered yet.
    pub(super) fn unrouted(
        &self,
        why: Why,
        members: Vec<Arc<Upstream>>,
        awaited: Vec<Arc<str>>,
        key: &str,
    ) -> Group {
        let spec = RouteSpec::default();
        let branches = vec![Branch {
            name: "".into(),
            weight: 1,
            model: None,
            to: To::Pool(self.pool(members, &spec)),
            serves: Serves::ANY,
        }];
        let rules = rules(&spec, branches.iter());
        let plan = Plan {
            why,
            awaited,
            hold: None,
            branches,
            fallback: Vec::new(),
            rules,
            on_failure: OnFailure::from(&spec),
            budget: self.budget(key),
        };
        Group::new(Arc::new(plan), self.generation)
    }

    fn pool(&self, members: Vec<Arc<Upstream>>, route: &RouteSpec) -> Pool {
        let around = Around {
            region: self.region.as_deref(),
            index: self.index.as_ref(),
            generation: self.generation,
        };
        Pool::new(members, route, &around)
    }

    fn to(&self, route: &str, name: &str, spec: &RouteSpec, pools: &Pools) -> Result<To, Error> {
        if name == LOCAL {
            return Ok(To::Local);
        }
        let members = match (self.upstreams.get(name), pools.0.get(name)) {
            (Some(upstream), _) => vec![Arc::clone(upstream)],
            (None, Some(pool)) => pool.clone(),
            (None, None) => {
                let upstreams = self.upstreams.keys().map(AsRef::as_ref);
                let known = upstreams.chain(pools.0.keys().map(String::as_str));
                return Err(Error::UnknownUpstream {
                    route: route.to_owned(),
                    name: name.to_owned(),
                    nearest: nearest(name, known).map(str::to_owned),
                });
            }
        };
        Ok(To::Pool(self.pool(members, spec)))
    }
}

fn rules<'a>(spec: &RouteSpec, branches: impl Iterator<Item = &'a Branch>) -> Rules {
    let pools = branches.filter_map(|branch| match &branch.to {
        To::Local => None,
        To::Pool(pool) => Some(pool),
    });
    let members: Vec<_> = pools.flat_map(|pool| &pool.members).collect();
    let coloured = members.iter().any(|member| member.spec.colour.is_some());
    let placed = members.iter().any(|member| member.spec.region.is_some());
    // Checked when the resource was validated.
    let header = |name: &str| name.parse().ok();
    let by_session = spec.policy == RoutePolicy::Affinity;
    Rules {
        colour: coloured.then(|| header(&spec.colour.header)).flatten(),
        colour_strict: spec.colour.strict,
        region: placed.then(|| header(&spec.region.header)).flatten(),
        prompt: spec.policy == RoutePolicy::Prefix,
        session: by_session.then(|| header(&spec.affinity.header)).flatten(),
        spill_depth: spec.region.spill_depth as f32,
    }
}
