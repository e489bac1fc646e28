//! Whether an ensemble can answer: all members there, and fitting. Decided anew whenever a model is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::ModelState;
use protocol::config::ensemble::{Member, check_members};

use super::Ensemble;
use super::graph::Step;
use crate::model::Model;
use crate::snapshot::{Blocked, Snapshot, Version};

/// Why an ensemble does not answer.
type Obstacle = (ModelState, String);

/// Makes each ensemble ready or blocked, by its members. Ensembles of ensembles come after those they are made of.
pub(crate) fn settle(snapshot: &mut Snapshot) {
    let mut left: BTreeMap<(String, u64), Arc<Model>> = BTreeMap::new();
    for (name, versions) in &snapshot.models {
        for (number, version) in versions {
            let known = version.model().or_else(|| version.blocked());
            if let Some(model) = known.filter(|model| model.ensemble().is_some()) {
                left.insert((name.clone(), *number), Arc::clone(model));
            }
        }
    }
    while !left.is_empty() {
        let next = left.iter().find(|(_, model)| {
            let mut steps = model
                .ensemble()
                .into_iter()
                .flat_map(|ensemble| &ensemble.graph.steps);
            steps.all(|step| left.keys().all(|(name, _)| *name != step.model))
        });
        let Some((key, _)) = next else {
            return circular(snapshot, &left);
        };
        let key = key.clone();
        if let Some(model) = left.remove(&key) {
            place(snapshot, key, model);
        }
    }
}

fn place(snapshot: &mut Snapshot, (name, number): (String, u64), model: Arc<Model>) {
    let standing = model
        .ensemble()
        .map_or(Ok(()), |ensemble| standing(ensemble, &model, snapshot));
    let version = match standing {
        Ok(()) => Version::Ready(model),
        Err((state, reason)) => Version::Blocked(Blocked {
            model,
            state,
            reason,
        }),
    };
    if let Some(versions) = snapshot.models.get_mut(&name) {
        versions.insert(number, version);
    }
}

fn circular(snapshot: &mut Snapshot, left: &BTreeMap<(String, u64), Arc<Model>>) {
    let mut names: Vec<&str> = left.keys().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let (first, last) = (names.first().copied(), names.last().copied());
    let reason = format!(
        "circular dependency between ensembles: {} -> ... -> {}",
        first.unwrap_or_default(),
        last.unwrap_or_default()
    );
    for ((name, number), model) in left {
        let version = Version::Blocked(Blocked {
            model: Arc::clone(model),
            state: ModelState::Unavailable,
            reason: reason.clone(),
        });
        if let Some(versions) = snapshot.models.get_mut(name) {
            versions.insert(*number, version);
        }
    }
}

fn standing(ensemble: &Ensemble, model: &Model, snapshot: &Snapshot) -> Result<(), Obstacle> {
    let unavailable = |reason: String| (ModelState::Unavailable, reason);
    let name = &ensemble.name;
    let steps = &ensemble.graph.steps;
    let unknown: Vec<&str> = steps
        .iter()
        .map(|step| step.model.as_str())
        .filter(|member| !snapshot.models.contains_key(*member))
        .collect();
    if !unknown.is_empty() {
        return Err(unavailable(format!(
            "ensemble {name} contains models that are not available or ambiguous: {}",
            unknown.join(", ")
        )));
    }
    let mut members = Vec::with_capacity(steps.len());
    for step in steps {
        members.push(member(name, step, snapshot)?);
    }
    let fitting: Vec<Option<Member<'_>>> = steps
        .iter()
        .zip(&members)
        .map(|(step, member)| {
            let over = step.fan_out.as_ref().map(|fan_out| &fan_out.names[..]);
            Some(Member {
                config: &member.config,
                over: over.unwrap_or_default(),
            })
        })
        .collect();
    match check_members(&model.config, name, &fitting) {
        Err(problem) => Err(unavailable(problem.message)),
        Ok(true) => Err(unavailable(format!(
            "ensemble '{name}' has a decoupled member: an ensemble that answers more than once is not supported"
        ))),
        Ok(false) => Ok(()),
    }
}

fn member(name: &str, step: &Step, snapshot: &Snapshot) -> Result<Arc<Model>, Obstacle> {
    let found = snapshot.version(&step.model, step.version.as_deref());
    let (state, reason) = match &found {
        Ok((number, version)) => match version.model() {
            Some(model) => return Ok(Arc::clone(model)),
            None => (
                version.state(),
                format!(
                    "version {number} is at {} state: {}",
                    version.state().name(),
                    version.reason()
                ),
            ),
        },
        Err(error) => (ModelState::Unavailable, error.to_string()),
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

/// Logs what became of ensembles between two publications.
pub(crate) fn announce(before: &Snapshot, after: &Snapshot) {
    for (name, versions) in &after.models {
        for (number, version) in versions {
            let known = version.model().or_else(|| version.blocked());
            if known.is_none_or(|model| model.ensemble().is_none()) {
                continue;
            }
            let was = before.models.get(name).and_then(|was| was.get(number));
            let same = was.is_some_and(|was| {
                (was.state(), was.reason()) == (version.state(), version.reason())
            });
            match version.state() {
                _ if same => {}
                ModelState::Ready => {
                    tracing::info!(model = name, version = number, "ensemble is ready")
                }
                ModelState::Unavailable => {
                    let reason = version.reason();
                    tracing::error!(
                        model = name,
                        version = number,
                        reason,
                        "ensemble is unavailable"
                    );
                }
                ModelState::Loading | ModelState::Unloading => {}
            }
        }
    }
}
