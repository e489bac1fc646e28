//! Who answers a request. A pure function: snapshot and facts in, target and reason out.

mod branch;
mod decision;
mod hints;
mod placing;

use std::sync::Arc;
use std::time::Instant;

use base::nearest;
use routing::{Caller, Load};

use crate::gateway::Shared;
use crate::snapshot::{Group, Snapshot, Target, Turns, Why};
use crate::upstream::{Upstream, Wire};

use branch::{Choice, Choosing};
pub(crate) use decision::{Claim, Decision};
pub(crate) use hints::Hints;
pub(crate) use placing::{Outcome, Placed, Placing};

/// Why a discovered pool without a server cannot answer.
const NO_SERVERS: &str = "no server of it is known yet";

/// Of those that cannot answer, as many are named.
const NAMED_MAX: usize = 10;

/// What is known of a request when a target is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) model: &'a str,
    pub(crate) wire: Wire,
    pub(crate) local: Local,
    pub(crate) hints: &'a Hints,
    /// Whether somebody has refused it as longer than a model's context: then only who is there for that is asked.
    pub(crate) longer: bool,
    /// Upstreams that it must not see again.
    pub(crate) tried: &'a [Arc<Upstream>],
    /// What it is about is kept there and nowhere else.
    pub(crate) keeper: Option<&'a Arc<Upstream>>,
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
    /// The next turn.
    fn turn(&self, turns: &Turns) -> u64;

    fn ready(&self, upstream: &Upstream) -> bool;

    /// Whether it should get this request while somebody else can.
    fn sound(&self, upstream: &Upstream) -> bool;

    fn load(&self, upstream: &Upstream) -> Load;

    /// As meters of load count.
    fn now_ms(&self) -> u32;
}

/// The state of the running gateway.
#[derive(Debug)]
pub(crate) struct Running {
    now: Instant,
    now_ms: u32,
    caller: Caller,
}

impl Running {
    pub(crate) fn at(shared: &Shared, caller: Caller) -> Self {
        let now = shared.clock.now();
        Self {
            now,
            now_ms: shared.ms_at(now),
            caller,
        }
    }
}

impl Now for Running {
    fn turn(&self, turns: &Turns) -> u64 {
        turns.next()
    }

    fn ready(&self, upstream: &Upstream) -> bool {
        upstream.ready()
    }

    fn sound(&self, upstream: &Upstream) -> bool {
        upstream.live.health.sound(self.caller, self.now)
    }

    fn load(&self, upstream: &Upstream) -> Load {
        upstream.live.meter.read(self.now_ms)
    }

    fn now_ms(&self) -> u32 {
        self.now_ms
    }
}

#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) target: Target,
    /// What the model is called there, if not as the client calls it: the request is told so, and nothing else.
    pub(crate) model: Option<Arc<str>>,
    pub(crate) decision: Decision,
}

/// Nobody can answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// No target has such a model.
    UnknownModel { nearest: Option<String> },
    /// Targets have it; none is ready that was not tried. Some of them, each with why.
    NotReady(Vec<(String, String)>),
}

/// Exact route, then longest wildcard route, then the models here, then upstreams that list the model, then upstreams
/// that list nothing. A target that is not ready is passed over while another of the same claim is; a route is the
/// operator's word, so nothing outside it is asked.
///
/// Asked again after a failure, with who was tried, it goes on to the next, and down the route's fallback chain.
pub(crate) fn pick(
    snapshot: &Snapshot,
    facts: &RequestFacts<'_>,
    now: &impl Now,
) -> Result<Pick, NoRoute> {
    if let Some(keeper) = facts.keeper {
        return kept(snapshot, keeper, facts, now);
    }
    if let Some(group) = snapshot.route(facts.model) {
        return routed(group, facts, now);
    }
    if facts.local == Local::Ready {
        return Ok(local(Claim::Here));
    }
    let listed = snapshot.listed.get(facts.model);
    if let Some(choice) = listed.and_then(|group| choose(group, facts, now)) {
        let claim = match facts.local {
            Local::Absent => Claim::Listed,
            _ => Claim::ListedInstead,
        };
        return Ok(choice.by(claim));
    }
    if facts.local == Local::NotReady {
        return Ok(local(Claim::HereNotReady));
    }
    // Somebody claims the model and is down: a catch-all would only say that it does not know it.
    if let Some(group) = listed
        && speaks(group, facts.wire)
    {
        return Err(not_ready(group, facts));
    }
    if let Some(choice) = choose(&snapshot.catch_all, facts, now) {
        return Ok(choice.by(Claim::CatchAll));
    }
    if speaks(&snapshot.catch_all, facts.wire) {
        return Err(not_ready(&snapshot.catch_all, facts));
    }
    Err(NoRoute::UnknownModel {
        nearest: nearest(facts.model, snapshot.known_models()).map(str::to_owned),
    })
}

/// Nobody else is asked: they would say that there is no such thing, and be believed.
fn kept(
    snapshot: &Snapshot,
    keeper: &Arc<Upstream>,
    facts: &RequestFacts<'_>,
    now: &impl Now,
) -> Result<Pick, NoRoute> {
    let mut tried = facts.tried.iter();
    if tried.any(|tried| Arc::ptr_eq(tried, keeper)) || !now.ready(keeper) {
        let why = (keeper.name.to_string(), keeper.reason());
        return Err(NoRoute::NotReady(vec![why]));
    }
    let group = snapshot.group(facts.model);
    Ok(Pick {
        target: Target::Upstream(Arc::clone(keeper)),
        model: group.model_at(keeper),
        decision: Decision {
            claim: Claim::Kept,
            chosen: Arc::clone(&keeper.name),
            ..Decision::default()
        },
    })
}

fn routed(group: &Group, facts: &RequestFacts<'_>, now: &impl Now) -> Result<Pick, NoRoute> {
    let claim = match &group.plan.why {
        Why::Route(name) => Claim::Route(Arc::clone(name)),
        // Only routes come here.
        Why::Listed | Why::CatchAll => Claim::Listed,
    };
    if let Some(choice) = choose(group, facts, now) {
        return Ok(choice.by(claim));
    }
    // The model server says best what is wrong with a model of its own.
    if group.has_local() && (facts.local == Local::NotReady || !speaks(group, facts.wire)) {
        return Ok(local(claim));
    }
    if speaks(group, facts.wire) {
        return Err(not_ready(group, facts));
    }
    Err(NoRoute::UnknownModel { nearest: None })
}

fn choose(group: &Group, facts: &RequestFacts<'_>, now: &impl Now) -> Option<Choice> {
    let choosing = |sound_only| Choosing {
        group,
        facts,
        now,
        sound_only,
    };
    // Somebody is always tried: when all are in trouble, trouble is no reason.
    choosing(true).choose().or_else(|| choosing(false).choose())
}

impl Choice {
    fn by(mut self, claim: Claim) -> Pick {
        self.decision.claim = claim;
        Pick {
            target: self.target,
            model: self.model,
            decision: self.decision,
        }
    }
}

fn local(claim: Claim) -> Pick {
    Pick {
        target: Target::Local,
        model: None,
        decision: Decision {
            claim,
            chosen: "local".into(),
            ..Decision::default()
        },
    }
}

/// Whether any upstream of the group could take the request if it were ready.
fn speaks(group: &Group, wire: Wire) -> bool {
    !group.plan.awaited.is_empty() || group.candidates().any(|upstream| upstream.speaks(wire))
}

fn not_ready(group: &Group, facts: &RequestFacts<'_>) -> NoRoute {
    let tried = |upstream: &&Arc<Upstream>| {
        let mut tried = facts.tried.iter();
        tried.any(|tried| Arc::ptr_eq(tried, upstream))
    };
    let down = group
        .candidates()
        .filter(|upstream| upstream.speaks(facts.wire) && !tried(upstream));
    let down = down.map(|upstream| (upstream.name.to_string(), upstream.reason()));
    let awaited = group.plan.awaited.iter();
    let awaited = awaited.map(|pool| (pool.to_string(), NO_SERVERS.to_owned()));
    NoRoute::NotReady(down.chain(awaited).take(NAMED_MAX).collect())
}

#[cfg(test)]
mod tests;
