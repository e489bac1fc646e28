//! Whether an ensemble can answer: all members there, and fitting. Decided anew whenever a model is published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::ModelState;
use protocol::config::ensemble::{Member, check_members};
use protocol::oip::proto::ModelConfig;

use super::Ensemble;
use super::graph::Step;
use crate::catalogue::{Blocked, Catalogue, Models, Ready, Version, Versions};
use crate::model::Model;

/// Why an ensemble does not answer.
type Obstacle = (ModelState, String);

/// Makes each ensemble ready or blocked, by its members. Ensembles of ensembles come after those they are made of.
pub(crate) fn settle(catalogue: &Catalogue) {
    let _one_at_a_time = catalogue.judging.lock();
    let models = Arc::clone(&catalogue.models());
    let mut left: BTreeMap<(String, u64), Ready> = BTreeMap::new();
    for (name, entry) in models.iter() {
        for (number, version) in &entry.versions().states {
            let known = version.ready().or_else(|| version.blocked());
            if let Some(ready) = known.filter(|ready| ready.model.ensemble().is_some()) {
                left.insert((name.clone(), *number), ready.clone());
            }
        }
    }
    while !left.is_empty() {
        let next = left.iter().find(|(_, ready)| {
            let mut steps = ready
                .model
                .ensemble()
                .into_iter()
                .flat_map(|ensemble| &ensemble.graph.steps);
            steps.all(|step| left.keys().all(|(name, _)| *name != step.model))
        });
        let Some(key) = next.map(|(key, _)| key.clone()) else {
            return circular(&models, left);
        };
        if let Some(ready) = left.remove(&key) {
            let standing = ready
                .model
                .ensemble()
                .map_or(Ok(()), |ensemble| standing(ensemble, &ready.model, &models));
            place(&models, key, (ready, standing));
        }
    }
}

fn place(models: &Models, (name, number): (String, u64), found: (Ready, Result<(), Obstacle>)) {
    let (ready, standing) = found;
    let Some(entry) = models.get(&name) else {
        return;
    };
    let model = Arc::clone(&ready.model);
    let version = match standing {
        Ok(()) => Version::Ready(ready),
        Err((state, reason)) => Version::Blocked(Blocked {
            ready,
            state,
            reason,
        }),
    };
    let same = |was: &Version| (was.state(), was.reason()) == (version.state(), version.reason());
    let unchanged = entry.versions().states.get(&number).is_some_and(same);
    if unchanged {
        return;
    }
    entry.amend(number, |was| {
        let known = was.ready().or_else(|| was.blocked());
        let still = known.is_some_and(|known| Arc::ptr_eq(&known.model, &model));
        still.then(|| version.clone())
    });
    announce(&name, number, &version);
}

/// What is left when each waits for another: circles of ensembles, and those that need one in a circle.
fn circular(models: &Models, left: BTreeMap<(String, u64), Ready>) {
    let mut members: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ((name, _), ready) in &left {
        let steps = ready.model.ensemble().into_iter();
        let steps = steps.flat_map(|ensemble| &ensemble.graph.steps);
        let own = members.entry(name).or_default();
        own.extend(steps.map(|step| step.model.as_str()));
    }
    let of = |name: &str| members.get(name).cloned().unwrap_or_default();
    let (inside, outside): (Vec<_>, Vec<_>) = left
        .iter()
        .map(|((name, number), ready)| ((name, *number, ready), circle(name, of)))
        .partition(|(_, reason)| reason.is_some());
    for ((name, number, ready), reason) in inside {
        let obstacle = (ModelState::Unavailable, reason.unwrap_or_default());
        place(
            models,
            (name.clone(), number),
            (ready.clone(), Err(obstacle)),
        );
    }
    for ((name, number, ready), _) in outside {
        let reason = format!("ensemble '{name}' depends on ensembles that depend on each other");
        let obstacle = (ModelState::Unavailable, reason);
        place(
            models,
            (name.clone(), number),
            (ready.clone(), Err(obstacle)),
        );
    }
}

/// How an ensemble comes to contain itself, in Triton's words; none when it does not. `members` are those of an
/// ensemble, in the order of its steps.
pub(crate) fn circle<'a>(start: &'a str, members: impl Fn(&str) -> Vec<&'a str>) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(current) = open.pop() {
        for member in members(current) {
            if member == start {
                return Some(format!(
                    "circular dependency between ensembles: {start} -> ... -> {current} -> {start}"
                ));
            }
            if seen.insert(member) {
                open.push(member);
            }
        }
    }
    None
}

/// Makes ready only what is: an ensemble that is not yet published and whose members do not answer, or do not fit, never
/// shows itself ready.
pub(crate) fn judge(catalogue: &Catalogue, before: &Versions, next: &mut Versions) {
    let models = Arc::clone(&catalogue.models());
    for (number, version) in &mut next.states {
        let Some(ready) = version.ready().cloned() else {
            continue;
        };
        let Some(ensemble) = ready.model.ensemble() else {
            continue;
        };
        let model = Arc::clone(&ready.model);
        if let Err((state, reason)) = standing(ensemble, &model, &models) {
            *version = Version::Blocked(Blocked {
                ready: ready.clone(),
                state,
                reason,
            });
        }
        let was = before.states.get(number);
        let was = was.and_then(|was| was.ready().or_else(|| was.blocked()));
        if was.is_none_or(|was| !Arc::ptr_eq(&was.model, &model)) {
            announce(&model.name, *number, version);
        }
    }
}

fn standing(ensemble: &Ensemble, model: &Model, models: &Models) -> Result<(), Obstacle> {
    let unavailable = |reason: String| (ModelState::Unavailable, reason);
    let name = &ensemble.name;
    let steps = &ensemble.graph.steps;
    let unknown: Vec<&str> = steps
        .iter()
        .map(|step| step.model.as_str())
        .filter(|member| !models.contains_key(*member))
        .collect();
    if !unknown.is_empty() {
        return Err(unavailable(format!(
            "ensemble {name} contains models that are not available or ambiguous: {}",
            unknown.join(", ")
        )));
    }
    let mut members = Vec::with_capacity(steps.len());
    for step in steps {
        members.push(member(name, step, models)?);
    }
    // A member that is loaded on first use is looked at then.
    let configs: Vec<Option<ModelConfig>> = members
        .iter()
        .map(|member| Some(member.as_ref()?.shown_config()))
        .collect();
    let fitting: Vec<Option<Member<'_>>> = steps
        .iter()
        .zip(&configs)
        .map(|(step, config)| {
            let over = step.fan_out.as_ref().map(|fan_out| &fan_out.names[..]);
            Some(Member {
                config: config.as_ref()?,
                over: over.unwrap_or_default(),
            })
        })
        .collect();
    let decoupled = check_members(&model.config, name, &fitting)
        .map_err(|problem| unavailable(problem.message))?;
    let both = steps.iter().zip(&members).position(|(step, member)| {
        let many = member.as_ref().is_some_and(|member| member.decoupled());
        many && step.fan_out.is_some()
    });
    if let Some(step) = both {
        return Err(unavailable(format!(
            "step {step} of ensemble '{name}' runs once per item, and its model '{}' answers any number of times: take the step out of [[pipeline.fan_out]]",
            steps[step].model
        )));
    }
    ensemble.decoupled.store(decoupled, Ordering::Relaxed);
    Ok(())
}

fn member(name: &str, step: &Step, models: &Models) -> Result<Option<Arc<Model>>, Obstacle> {
    let versions = models.get(&step.model).map(|entry| entry.versions());
    let found = versions
        .as_ref()
        .and_then(|versions| versions.find(step.version.as_deref()));
    let (state, reason) = match found {
        Some((number, version)) => match version.model() {
            Some(model) => return Ok(Some(Arc::clone(model))),
            None if version.answers() => return Ok(None),
            None => (
                version.state(),
                format!(
                    "version {number} is at {} state: {}",
                    version.state().name(),
                    version.reason()
                ),
            ),
        },
        None => (
            ModelState::Unavailable,
            "there is no such version".to_owned(),
        ),
    };
    let obstacle = match &step.version {
        Some(version) => format!(
            "ensemble '{name}' depends on '{}' whose required version {version} is not loaded",
            step.model
        ),
        None => format!(
            "ensemble '{name}' depends on '{}' which has no loaded version. Model '{}' loading failed with error: {reason};",
            step.model, step.model
        ),
    };
    Err(match state {
        ModelState::Loading => (
            ModelState::Loading,
            format!("ensemble '{name}' waits for '{}'", step.model),
        ),
        _ => (ModelState::Unavailable, obstacle),
    })
}

/// Logs what became of an ensemble.
fn announce(model: &str, version: u64, state: &Version) {
    match state.state() {
        ModelState::Ready => tracing::info!(model, version, "ensemble is ready"),
        ModelState::Unavailable => {
            let reason = state.reason();
            tracing::error!(model, version, reason, "ensemble is unavailable");
        }
        ModelState::Loading | ModelState::Unloading => {}
    }
}
