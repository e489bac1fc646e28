//! What leaves service: versions that were replaced, unloaded or put to sleep.

use std::sync::Arc;

use super::{UNLOADED, gone, retire};
use crate::catalogue::{Entry, Version, Versions};
use crate::runtime::Inner;

/// Lets go of what served before.
pub(super) fn forget(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let previous = entry.life.lock().previous.take();
    let Some(previous) = previous else { return };
    let now = entry.versions();
    for (_, ready) in now.ready() {
        ready.model.track.trust();
    }
    let leaving = gone(&previous.versions, &now);
    drop(now);
    drop(previous);
    retire::retire(inner, entry, leaving);
}

/// Takes all that is in memory out of service; requests in flight are answered first.
pub(super) fn take_out(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    after: impl Fn(&Version) -> Version,
) {
    forget(inner, entry);
    let mut next = Versions::clone(&entry.versions());
    for state in next.states.values_mut() {
        *state = after(state);
    }
    let before = entry.publish(next);
    let leaving: Vec<_> = before
        .states
        .iter()
        .filter_map(|(number, state)| {
            Some((*number, state.ready().or_else(|| state.blocked())?.clone()))
        })
        .collect();
    drop(before);
    retire::retire(inner, entry, leaving);
}

pub(super) fn unloaded(state: &Version) -> Version {
    match state {
        Version::Ready(_) | Version::Blocked(_) => Version::Unloading,
        Version::Unavailable(reason) => Version::Unloaded(reason.clone()),
        _ => Version::Unloaded(UNLOADED.to_owned()),
    }
}

pub(super) fn asleep(state: &Version) -> Version {
    match state {
        Version::Ready(_) | Version::Blocked(_) => Version::Asleep,
        other => other.clone(),
    }
}
