//! Who answers a request. A pure function: snapshot and facts in, target and reason out.

use base::nearest;

use crate::snapshot::{Group, Snapshot, Target, Why};
use crate::upstream::{Upstream, Wire};

/// What is known of a request when a target is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) model: &'a str,
    pub(crate) wire: Wire,
    pub(crate) local: Local,
}

/// What this process has of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Local {
    /// No such model, or not one that takes this kind of request.
    Absent,
    NotReady,
    Ready,
}

/// What changes from request to request; a test answers as it likes.
pub(crate) trait Now {
    /// The group's next turn.
    fn turn(&self, group: &Group) -> u64;

    fn ready(&self, upstream: &Upstream) -> bool;
}

/// The state of the running gateway.
#[derive(Debug)]
pub(crate) struct Running;

impl Now for Running {
    fn turn(&self, group: &Group) -> u64 {
        group.next_turn()
    }

    fn ready(&self, upstream: &Upstream) -> bool {
        upstream.ready()
    }
}

#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) target: Target,
    /// For people: `kapok explain` shows it.
    pub(crate) reason: String,
}

/// Nobody can answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// No target has such a model.
    UnknownModel { nearest: Option<String> },
    /// Targets have it; none is ready. Each with why.
    NotReady(Vec<(String, String)>),
}

/// Exact route, then longest wildcard route, then the models here, then upstreams that list the model, then upstreams
/// that list nothing. A target that is not ready is passed over while another of the same claim is; a route is the
/// operator's word, so nothing outside it is asked.
pub(crate) fn pick(
    snapshot: &Snapshot,
    facts: &RequestFacts<'_>,
    now: &impl Now,
) -> Result<Pick, NoRoute> {
    if let Some(group) = route(snapshot, facts.model) {
        return routed(group, facts, now);
    }
    if facts.local == Local::Ready {
        return Ok(local("the model is in this process".to_owned()));
    }
    let listed = snapshot.listed.get(facts.model);
    if let Some(target) = listed.and_then(|group| turn_of(group, facts, now)) {
        let name = target.name();
        let reason = match facts.local {
            Local::Absent => format!("upstream `{name}` lists the model"),
            _ => format!("the model here is not ready, and upstream `{name}` lists it"),
        };
        return Ok(Pick {
            target: target.clone(),
            reason,
        });
    }
    if facts.local == Local::NotReady {
        let reason = "the model is in this process, though not ready".to_owned();
        return Ok(local(reason));
    }
    // Somebody claims the model and is down: a catch-all would only say that it does not know it.
    if let Some(group) = listed
        && speaks(group, facts.wire)
    {
        return Err(not_ready(group, facts.wire));
    }
    if let Some(target) = turn_of(&snapshot.catch_all, facts, now) {
        let name = target.name();
        return Ok(Pick {
            target: target.clone(),
            reason: format!("nobody lists the model, and upstream `{name}` takes any"),
        });
    }
    if speaks(&snapshot.catch_all, facts.wire) {
        return Err(not_ready(&snapshot.catch_all, facts.wire));
    }
    Err(NoRoute::UnknownModel {
        nearest: nearest(facts.model, snapshot.known_models()).map(str::to_owned),
    })
}

fn route<'s>(snapshot: &'s Snapshot, model: &str) -> Option<&'s Group> {
    snapshot.exact.get(model).or_else(|| {
        snapshot
            .wildcards
            .iter()
            .find(|(prefix, _)| model.starts_with(prefix.as_str()))
            .map(|(_, group)| group)
    })
}

fn routed(group: &Group, facts: &RequestFacts<'_>, now: &impl Now) -> Result<Pick, NoRoute> {
    let route = match &group.why {
        Why::Route(name) => name,
        // Only routes come here.
        Why::Listed | Why::CatchAll => "",
    };
    if let Some(target) = turn_of(group, facts, now) {
        let name = target.name();
        let reason = match group.targets.len() {
            1 => format!("route `{route}` sends it to `{name}`"),
            count => format!("route `{route}`: `{name}` had its turn among {count} targets"),
        };
        return Ok(Pick {
            target: target.clone(),
            reason,
        });
    }
    // The model server says best what is wrong with a model of its own.
    let has_local = group
        .targets
        .iter()
        .any(|(target, _)| matches!(target, Target::Local));
    if has_local && (facts.local == Local::NotReady || !speaks(group, facts.wire)) {
        return Ok(local(format!("route `{route}` sends it to `local`")));
    }
    if speaks(group, facts.wire) {
        return Err(not_ready(group, facts.wire));
    }
    Err(NoRoute::UnknownModel { nearest: None })
}

fn turn_of<'g>(group: &'g Group, facts: &RequestFacts<'_>, now: &impl Now) -> Option<&'g Target> {
    if group.targets.is_empty() {
        return None;
    }
    group.choose(now.turn(group), |target| match target {
        Target::Local => facts.local == Local::Ready,
        Target::Upstream(upstream) => upstream.speaks(facts.wire) && now.ready(upstream),
    })
}

fn local(reason: String) -> Pick {
    Pick {
        target: Target::Local,
        reason,
    }
}

/// Whether any upstream of the group could take the request if it were ready.
fn speaks(group: &Group, wire: Wire) -> bool {
    upstreams(group, wire).next().is_some()
}

fn not_ready(group: &Group, wire: Wire) -> NoRoute {
    NoRoute::NotReady(
        upstreams(group, wire)
            .map(|upstream| (upstream.name.to_string(), upstream.reason()))
            .collect(),
    )
}

fn upstreams(group: &Group, wire: Wire) -> impl Iterator<Item = &Upstream> {
    group
        .targets
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .filter_map(move |(target, _)| match target {
            Target::Upstream(upstream) if upstream.speaks(wire) => Some(&**upstream),
            Target::Local | Target::Upstream(_) => None,
        })
}

#[cfg(test)]
mod tests;
