//! Everything a request needs to be routed, built from a list of resources and never changed afterwards.

mod group;
mod patterns;
mod plan;
mod pool;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::Clock;
use http::HeaderName;
use protocol::resource::{NodeSpec, Resource, RoutePolicy, RouteSpec, Spec, UpstreamSpec};
use routing::{Budget, Index};

pub(crate) use group::{Branch, Group, OnFailure, Plan, Rules, Target, To, Turns, Why};
pub(crate) use patterns::Patterns;
pub(crate) use pool::Cell;

use crate::Error;
use crate::admission::{KeyRules, RouteRules};
use crate::keys::Keys;
use crate::upstream::{Upstream, Wire};

/// The name by which a route means the models in this process.
const LOCAL: &str = "local";

/// One consistent set of resources. Readers take it once per request.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) generation: u64,
    /// By name.
    pub(crate) upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// Pools whose servers are discovered, and the models that they list.
    pub(crate) templates: BTreeMap<Arc<str>, Option<Vec<String>>>,
    /// Routes for one name each.
    pub(crate) exact: HashMap<String, Group>,
    /// Routes for names with this start, longest first.
    pub(crate) wildcards: Vec<(String, Group)>,
    /// Upstreams by the models they list.
    pub(crate) listed: HashMap<String, Group>,
    /// Upstreams that list no models: they get what nobody else claims.
    pub(crate) catch_all: Group,
    pub(crate) keys: Keys,
    /// Headers that any route looks at.
    pub(crate) watched: Vec<HeaderName>,
    /// The node's.
    region: Option<String>,
    /// Who knows which prompts; there if a route looks at them.
    index: Option<Arc<Index>>,
    index_bytes: usize,
    /// Ids of upstreams given out so far: what an index calls them.
    ids: u32,
    /// Of the snapshot before, while this one is built.
    budgets_before: HashMap<String, Arc<Budget>>,
    /// What routes say of limits, places and classes, for those that say anything.
    pub(crate) routes: HashMap<Arc<str>, RouteRules>,
    /// Whether any resource says anything of the kind.
    pub(crate) limited: bool,
    /// Whether any upstream has only so many places.
    pub(crate) places: bool,
}

impl Snapshot {
    /// The only way from resources to a snapshot, whatever their source. Pure: looks nothing up, opens nothing.
    ///
    /// An `apiKey` must be a `Secret::Value` by now; looking up the other kinds is the caller's.
    pub fn build(resources: &[Resource]) -> Result<Self, Error> {
        Self::default().successor(resources)
    }

    /// [`Snapshot::build`], taking over what is alive here: connections and readiness of upstreams that stay the same.
    pub(crate) fn successor(&self, resources: &[Resource]) -> Result<Self, Error> {
        refuse_duplicates(resources)?;
        let known = self.keys.rules();
        let mut next = Self {
            generation: self.generation + 1,
            budgets_before: self.budgets(),
            ids: self.ids,
            index_bytes: index_bytes(&NodeSpec::default()),
            ..Self::default()
        };
        for resource in resources {
            match &resource.spec {
                // Its servers come as upstreams of their own.
                Spec::Upstream(spec) if spec.discovery.is_some() => {
                    let models = spec.models.clone();
                    next.templates
                        .insert(resource.metadata.name.as_str().into(), models);
                }
                Spec::Upstream(spec) => next.add_upstream(&resource.metadata.name, spec, self)?,
                Spec::Node(spec) => {
                    next.region.clone_from(&spec.region);
                    next.index_bytes = index_bytes(spec);
                }
                Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => {}
            }
        }
        next.index = next.index(self, resources);
        let pools = plan::Pools::new(&next.upstreams, next.templates.keys())?;
        for resource in resources {
            let name = &resource.metadata.name;
            match &resource.spec {
                Spec::Route(spec) => {
                    next.add_route(name, spec, &pools)?;
                    let rules = RouteRules::new(name, spec, self.routes.get(name.as_str()));
                    next.routes
                        .extend(rules.map(|rules| (name.as_str().into(), rules)));
                }
                Spec::Key(spec) => next
                    .keys
                    .add(name, spec, known.get(name.as_str()).copied())
                    .map_err(|reason| invalid("Key", name, reason))?,
                Spec::Upstream(_) | Spec::Node(_) | Spec::Job(_) => {}
            }
        }
        next.index_upstreams();
        next.budgets_before.clear();
        next.watch();
        next.places = next.has_places();
        next.limited = next.places || next.says_limits();
        next.wildcards
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(next)
    }

    /// The index before if it is of the size asked for, so that a change of configuration does not forget all prompts.
    fn index(&self, before: &Self, resources: &[Resource]) -> Option<Arc<Index>> {
        let wanted = resources.iter().any(|resource| match &resource.spec {
            Spec::Route(spec) => spec.policy == RoutePolicy::Prefix,
            Spec::Node(_) | Spec::Upstream(_) | Spec::Key(_) | Spec::Job(_) => false,
        });
        let kept = before.index.clone();
        let kept = kept.filter(|_| before.index_bytes == self.index_bytes);
        wanted.then(|| kept.unwrap_or_else(|| Arc::new(Index::new(self.index_bytes))))
    }

    /// What answers for a model: a route, else those that list it, else those that list nothing.
    pub(crate) fn group(&self, model: &str) -> &Group {
        let listed = || self.listed.get(model).unwrap_or(&self.catch_all);
        self.route(model).unwrap_or_else(listed)
    }

    pub(crate) fn route(&self, model: &str) -> Option<&Group> {
        self.exact.get(model).or_else(|| {
            self.wildcards
                .iter()
                .find(|(prefix, _)| model.starts_with(prefix.as_str()))
                .map(|(_, group)| group)
        })
    }

    /// A route that was made for calls below this path, not for models of any name.
    pub(crate) fn route_of_path(&self, path: &str) -> Option<&Group> {
        self.exact.get(path).or_else(|| {
            let mut wildcards = self.wildcards.iter();
            let found = wildcards.find(|(start, _)| !start.is_empty() && path.starts_with(start));
            found.map(|(_, group)| group)
        })
    }

    fn budgets(&self) -> HashMap<String, Arc<Budget>> {
        let routes = self.exact.values();
        let routes = routes.chain(self.wildcards.iter().map(|(_, group)| group));
        let routes = routes.filter_map(|group| match &group.plan.why {
            Why::Route(name) => Some((format!("route {name}"), group)),
            Why::Listed | Why::CatchAll => None,
        });
        let listed = self.listed.iter();
        let listed = listed.map(|(model, group)| (format!("model {model}"), group));
        let rest = std::iter::once((String::new(), &self.catch_all));
        let all = routes.chain(listed).chain(rest);
        all.map(|(key, group)| (key, Arc::clone(&group.plan.budget)))
            .collect()
    }

    /// Makes the limits written here those that hold, in what outlives snapshots. To be called when this is published:
    /// a snapshot that is refused changes nothing.
    pub(crate) fn apply_limits(&self, clock: &Clock) {
        for rules in self.keys.rules().values() {
            rules.apply();
        }
        for rules in self.routes.values() {
            rules.apply(clock);
        }
        for upstream in self.upstreams.values() {
            upstream
                .live
                .line
                .publish(upstream.spec.max_in_flight, clock);
        }
    }

    fn says_limits(&self) -> bool {
        let mut keys = self.keys.rules().into_values();
        !self.routes.is_empty() || keys.any(KeyRules::say_anything)
    }

    fn has_places(&self) -> bool {
        let mut upstreams = self.upstreams.values();
        upstreams.any(|upstream| upstream.spec.max_in_flight.is_some())
    }

    /// What the route that a model takes says of admission.
    pub(crate) fn route_rules(&self, model: &str) -> Option<&RouteRules> {
        if self.routes.is_empty() {
            return None;
        }
        match &self.route(model)?.plan.why {
            Why::Route(name) => self.routes.get(name),
            Why::Listed | Why::CatchAll => None,
        }
    }

    /// Model names that are written anywhere: what a "not found" can suggest.
    pub(crate) fn known_models(&self) -> impl Iterator<Item = &str> {
        self.exact
            .keys()
            .chain(self.listed.keys())
            .map(String::as_str)
    }

    /// Whether several upstreams speak this, so that it matters which of them made something.
    pub(crate) fn several(&self, wire: Wire) -> bool {
        let speaking = self.upstreams.values().filter(|one| one.speaks(wire));
        speaking.take(2).count() == 2
    }

    /// Whether any upstream speaks this.
    pub(crate) fn reaches(&self, wire: Wire) -> bool {
        let mut upstreams = self.upstreams.values();
        upstreams.any(|upstream| upstream.speaks(wire))
    }

    fn add_upstream(
        &mut self,
        name: &str,
        spec: &UpstreamSpec,
        before: &Self,
    ) -> Result<(), Error> {
        if name == LOCAL {
            let reason = "this name means the models in this process";
            return Err(invalid("Upstream", name, reason));
        }
        let mut upstream = Upstream::new(name, spec, self.ids)
            .map_err(|reason| invalid("Upstream", name, reason))?;
        self.ids = self.ids.wrapping_add(1);
        if let Some(old) = before.upstreams.get(name) {
            upstream.inherit(old);
        }
        let upstream = Arc::new(upstream);
        self.upstreams.insert(Arc::clone(&upstream.name), upstream);
        Ok(())
    }

    fn add_route(
        &mut self,
        name: &str,
        spec: &RouteSpec,
        pools: &plan::Pools,
    ) -> Result<(), Error> {
        if spec.models.is_empty() {
            return Err(invalid("Route", name, "models is empty"));
        }
        let plan = Arc::new(self.plan(name, spec, pools)?);
        for model in &spec.models {
            let group = Group::new(Arc::clone(&plan), self.generation);
            let taken = match model.strip_suffix('*') {
                Some(prefix) if !prefix.contains('*') => {
                    let prefix = prefix.to_owned();
                    let taken = self.wildcards.iter().any(|(other, _)| *other == prefix);
                    self.wildcards.push((prefix, group));
                    taken
                }
                None if !model.contains('*') => self.exact.insert(model.clone(), group).is_some(),
                _ => {
                    let reason = format!("`{model}`: a star may stand only at the end");
                    return Err(invalid("Route", name, reason));
                }
            };
            if taken {
                let reason = format!("`{model}` is already routed by another Route");
                return Err(invalid("Route", name, reason));
            }
        }
        Ok(())
    }

    fn index_upstreams(&mut self) {
        let mut listed: HashMap<String, Vec<Arc<Upstream>>> = HashMap::new();
        let mut catch_all = Vec::new();
        for upstream in self.upstreams.values() {
            match &upstream.spec.models {
                Some(models) => {
                    for model in models {
                        let listing = listed.entry(model.clone()).or_default();
                        listing.push(Arc::clone(upstream));
                    }
                }
                None => catch_all.push(Arc::clone(upstream)),
            }
        }
        let (mut awaited, mut any): (HashMap<String, Vec<Arc<str>>>, _) = Default::default();
        for (name, models) in self.templates_without_servers() {
            match models {
                Some(models) => {
                    for model in models {
                        listed.entry(model.clone()).or_default();
                        awaited
                            .entry(model.clone())
                            .or_default()
                            .push(Arc::clone(name));
                    }
                }
                None => Vec::push(&mut any, Arc::clone(name)),
            }
        }
        self.listed = listed
            .into_iter()
            .map(|(model, members)| {
                let key = format!("model {model}");
                let awaited = awaited.remove(&model).unwrap_or_default();
                (model, self.unrouted(Why::Listed, members, awaited, &key))
            })
            .collect();
        self.catch_all = self.unrouted(Why::CatchAll, catch_all, any, "");
    }

    fn templates_without_servers(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Vec<String>>)> {
        let has = |name: &str| {
            let mut upstreams = self.upstreams.values();
            upstreams.any(|upstream| upstream.spec.pool.as_deref() == Some(name))
        };
        let templates = self.templates.iter().filter(move |(name, _)| !has(name));
        templates.map(|(name, models)| (name, models.as_ref()))
    }

    fn watch(&mut self) {
        let routed = self.wildcards.iter().map(|(_, group)| group);
        let groups = self.exact.values().chain(routed);
        let groups = groups.chain(self.listed.values()).chain([&self.catch_all]);
        let mut watched: Vec<HeaderName> = Vec::new();
        for group in groups {
            let rules = &group.plan.rules;
            for name in rules
                .colour
                .iter()
                .chain(&rules.region)
                .chain(&rules.session)
            {
                if !watched.contains(name) {
                    watched.push(name.clone());
                }
            }
        }
        self.watched = watched;
    }
}

fn index_bytes(node: &NodeSpec) -> usize {
    usize::try_from(node.prefix_index_mb)
        .unwrap_or(usize::MAX)
        .saturating_mul(1 << 20)
}

fn refuse_duplicates(resources: &[Resource]) -> Result<(), Error> {
    let mut seen = std::collections::HashSet::new();
    for resource in resources {
        let kind = resource.spec.kind();
        let name = resource.metadata.name.as_str();
        if name.is_empty() {
            return Err(invalid(kind, name, "metadata.name is empty"));
        }
        if !seen.insert((kind, name)) {
            return Err(invalid(kind, name, "there are two of this name"));
        }
    }
    Ok(())
}

fn invalid(kind: &'static str, name: &str, reason: impl Into<String>) -> Error {
    Error::Resource {
        kind,
        name: name.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
