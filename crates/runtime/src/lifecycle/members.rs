//! Ensembles bring their members: loading one by name loads what it is made of, unloading it may take that along.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::{LoadRequest, ModelState};

use super::{Done, Job, Jobs, Task, submit};
use crate::catalogue::{Entry, Version};
use crate::repository;
use crate::runtime::Inner;

/// The models behind an ensemble's steps, in memory or not; none for other models.
fn of(entry: &Entry) -> BTreeSet<String> {
    let mut members = BTreeSet::new();
    for version in entry.versions().states.values() {
        let known = version.ready().or_else(|| version.blocked());
        let ensemble = known.and_then(|ready| ready.model.ensemble());
        for (name, _) in ensemble.into_iter().flat_map(|ensemble| ensemble.members()) {
            members.insert(name.to_owned());
        }
    }
    members
}

/// The same, at any depth.
fn all_of(inner: &Inner, entry: &Entry) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut open: Vec<String> = of(entry).into_iter().collect();
    while let Some(name) = open.pop() {
        let known = inner.catalogue.get(&name);
        // An ensemble is no member of itself, whatever it says.
        if name != entry.name && all.insert(name) {
            open.extend(known.iter().flat_map(|member| of(member)));
        }
    }
    all
}

/// Nobody would get an answer of it, and it is not on its way.
fn absent(inner: &Inner, name: &str) -> bool {
    let Ok(entry) = inner.catalogue.get(name) else {
        return repository::find(&inner.settings.repositories, name).is_some();
    };
    let versions = entry.versions();
    let here = |version: &Version| {
        version.answers() || matches!(version, Version::Loading | Version::Blocked(_))
    };
    !versions.states.values().any(here)
}

/// Loads the members that are not in memory. The error is why the ensemble still cannot answer.
pub(super) async fn load(inner: &Arc<Inner>, model: &str) -> Result<(), String> {
    let Ok(entry) = inner.catalogue.get(model) else {
        return Ok(());
    };
    let mut seen = BTreeSet::new();
    loop {
        let known = all_of(inner, &entry);
        let mut next = known.into_iter().filter(|name| !seen.contains(name));
        let Some(name) = next.find(|name| absent(inner, name)) else {
            break;
        };
        let request = LoadRequest {
            model: name.clone(),
            ..LoadRequest::default()
        };
        // What is wrong with it, the ensemble says in its own words.
        let _told = submit(inner, name.clone(), Task::Load(Box::new(request))).await;
        seen.insert(name);
    }
    let versions = entry.versions();
    let blocked = versions.states.values().find_map(|version| match version {
        Version::Blocked(blocked) if blocked.state != ModelState::Loading => {
            Some(blocked.reason.clone())
        }
        _ => None,
    });
    let answers = versions.states.values().any(Version::answers);
    blocked.filter(|_| !answers).map_or(Ok(()), Err)
}

/// As [`load`], for an ensemble that is loaded at start by name: the start waits for them, too.
pub(super) fn start(inner: &Arc<Inner>, entry: &Entry) {
    for name in of(entry) {
        let Ok(member) = inner.catalogue.get(&name) else {
            continue;
        };
        if !std::mem::replace(&mut member.life.lock().out, false) {
            continue;
        }
        inner.loading.send_modify(|jobs| *jobs += 1);
        Jobs::submit(
            inner,
            Job {
                model: name,
                task: Task::Start,
                done: Some(Done::Counted(Arc::downgrade(inner))),
            },
        );
    }
}

/// All members that no other ensemble in service is made of.
pub(super) fn only_of(inner: &Inner, entry: &Arc<Entry>) -> Vec<String> {
    let mine = all_of(inner, entry);
    let models = inner.catalogue.models();
    let others = models
        .values()
        .filter(|other| !Arc::ptr_eq(other, entry) && !mine.contains(&other.name));
    let needed: BTreeSet<String> = others.flat_map(|other| all_of(inner, other)).collect();
    mine.into_iter()
        .filter(|name| !needed.contains(name))
        .collect()
}
