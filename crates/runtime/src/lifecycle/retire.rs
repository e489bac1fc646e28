//! Freeing models that nothing holds any more: not on an async worker, and not before the last request is answered.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::UNLOADED;
use crate::catalogue::{Entry, Ready, Version};
use crate::runtime::Inner;

/// How often it is looked whether the last request is gone: from here, doubling, to there.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(50);

/// Freed memory that is worth giving back to the system at once; it takes milliseconds.
const GIVE_BACK_BYTES: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Retired {
    state: Mutex<State>,
    /// Something has been freed.
    freed: Condvar,
}

/// Bounded by what is in memory.
#[derive(Debug, Default)]
struct State {
    going: Vec<Going>,
    /// Of models that are being freed.
    bytes: u64,
    thread: bool,
}

#[derive(Debug)]
struct Going {
    entry: Arc<Entry>,
    number: u64,
    ready: Ready,
}

impl Retired {
    /// Memory of models that no new request reaches.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Waits until something is freed, or this long.
    pub(crate) fn wait(&self, long: Duration) {
        self.freed.wait_for(&mut self.state.lock(), long);
    }
}

/// Frees these when the last request that uses them is answered. They must be published nowhere any more.
pub(super) fn retire(inner: &Arc<Inner>, entry: &Arc<Entry>, leaving: Vec<(u64, Ready)>) {
    if leaving.is_empty() {
        return;
    }
    let mut state = inner.retired.state.lock();
    for (number, ready) in leaving {
        state.bytes += ready.bytes;
        let entry = Arc::clone(entry);
        state.going.push(Going {
            entry,
            number,
            ready,
        });
    }
    if std::mem::replace(&mut state.thread, true) {
        return;
    }
    drop(state);
    let worker = Arc::clone(inner);
    let spawned = std::thread::Builder::new()
        .name("retire".to_owned())
        .spawn(move || serve(&worker));
    if let Err(error) = spawned {
        // The next one that retires tries again.
        inner.retired.state.lock().thread = false;
        tracing::error!(%error, "cannot start a thread that frees models");
    }
}

fn serve(inner: &Arc<Inner>) {
    let mut pause = LOOK_MIN;
    let mut freed = 0;
    loop {
        let done = {
            let mut state = inner.retired.state.lock();
            let idle = |going: &mut Going| Arc::strong_count(&going.ready.model) == 1;
            let done: Vec<Going> = state.going.extract_if(.., idle).collect();
            if done.is_empty() && state.going.is_empty() {
                state.thread = false;
                break;
            }
            done
        };
        if done.is_empty() {
            inner.retired.wait(pause);
            pause = (pause * 2).min(LOOK_MAX);
            continue;
        }
        pause = LOOK_MIN;
        for Going {
            entry,
            number,
            ready,
        } in done
        {
            let bytes = ready.bytes;
            drop(ready);
            freed += bytes;
            if freed >= GIVE_BACK_BYTES {
                (inner.give_back)();
                freed = 0;
            }
            let mut state = inner.retired.state.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
            drop(state);
            inner.retired.freed.notify_all();
            settled(inner, &entry, number);
        }
    }
}

/// Nothing of this version is left, unless another of its number serves.
fn settled(inner: &Inner, entry: &Arc<Entry>, number: u64) {
    forget_unused(inner, entry, number);
    // Last: who sees it unloaded finds nothing of it.
    entry.amend(number, |version| {
        let gone = matches!(version, Version::Unloading);
        gone.then(|| Version::Unloaded(UNLOADED.to_owned()))
    });
}

/// Drops a version's series unless it serves, will, or could come back.
pub(super) fn forget_unused(inner: &Inner, entry: &Arc<Entry>, number: u64) {
    let serves = |entry: &Arc<Entry>| {
        let versions = entry.versions();
        versions.states.get(&number).is_some_and(|version| {
            matches!(
                version,
                Version::Ready(_) | Version::Loading | Version::Waking
            )
        })
    };
    let kept = |entry: &Arc<Entry>| {
        let life = entry.life.lock();
        let previous = life.previous.as_ref();
        previous.is_some_and(|previous| previous.versions.ready().any(|(kept, _)| kept == number))
    };
    // A model of the same name may have come back under a new entry.
    let now = inner.catalogue.get(&entry.name);
    let used = |entry: &Arc<Entry>| serves(entry) || kept(entry);
    if !used(entry) && !now.is_ok_and(|now| used(&now)) {
        inner.metrics.forget(&entry.name, &number.to_string());
    }
}
