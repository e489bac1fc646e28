//! What a new version must pass before it serves, what is looked at after, and the way back.

mod compare;
mod track;

use std::sync::{Arc, Weak};

use protocol::sidecar::Sidecar;

pub(super) use compare::compare;
pub(crate) use track::Track;

use super::{Job, Jobs, Task, gone, retire};
use crate::catalogue::{Entry, Ready, Version, Versions};
use crate::metrics::SwapOutcome;
use crate::model::Model;
use crate::runtime::Inner;

/// Starts looking at what has just been made, measured against what it replaces.
pub(super) fn watch(inner: &Inner, before: &Versions, next: &Versions, sidecar: &Sidecar) {
    if sidecar.swap.keep_previous_s == 0 || inner.tasks.stopping() {
        return;
    }
    for (number, ready) in next.ready() {
        let same = before.states.get(&number);
        let reference = same
            .and_then(Version::model)
            .or_else(|| before.find(None)?.1.model());
        let Some(reference) = reference.filter(|old| !Arc::ptr_eq(old, &ready.model)) else {
            continue;
        };
        if let Some(engine) = ready.model.by_engine() {
            *engine.before.lock() = Arc::downgrade(reference);
        }
        ready.model.track.inherit(&reference.track);
        ready.model.track.watch(&reference.track, sidecar.swap);
    }
}

/// Books a call's end with its model, and sends for the previous version when the model has been found wanting.
pub(crate) fn judge(inner: &Arc<Inner>, model: &Arc<Model>, outcome: Ended) {
    let Some(why) = model.track.ended(outcome) else {
        return;
    };
    let judged = Some(Arc::downgrade(model));
    let task = Task::RollBack { why, judged };
    let name = model.name.clone();
    Jobs::submit(
        inner,
        Job {
            model: name,
            task,
            done: None,
        },
    );
}

/// How a call ended, as far as its model is to blame.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    Answered(std::time::Duration),
    Failed,
}

/// What served before serves again; what it replaces leaves.
pub(super) fn roll_back(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    why: &str,
    judged: Option<Weak<Model>>,
) -> Result<(), String> {
    let now = Arc::clone(&entry.versions());
    if let Some(judged) = judged {
        let judged = judged.upgrade();
        let serves = |model: &Arc<Model>| {
            now.ready()
                .any(|(_, ready)| Arc::ptr_eq(&ready.model, model))
        };
        if !judged.is_some_and(|judged| serves(&judged)) {
            // Replaced or unloaded meanwhile: there is nothing to take back.
            return Ok(());
        }
    }
    let previous = entry.life.lock().previous.take();
    let previous = previous.ok_or("no previous version is in memory")?;
    let mut next = Versions::clone(&previous.versions);
    for (number, ready) in now.ready() {
        let kept = next.states.get(&number).and_then(Version::ready).cloned();
        let state = match kept {
            // One that was there before and after.
            Some(kept) if Arc::ptr_eq(&kept.model, &ready.model) => continue,
            Some(kept) => Version::Ready(Ready {
                note: format!("what is on disk was rolled back: {why}"),
                ..kept
            }),
            None => Version::Unavailable(format!("rolled back: {why}")),
        };
        next.states.insert(number, state);
    }
    tracing::warn!(
        model = entry.name,
        why,
        "rolled back to the previous version"
    );
    for (_, ready) in previous.versions.ready() {
        ready.model.track.trust();
    }
    let leaving = gone(&now, &next);
    entry.publish(next);
    inner.metrics.lifecycle.swapped(SwapOutcome::RolledBack);
    drop(now);
    drop(previous);
    retire::retire(inner, entry, leaving);
    Ok(())
}
