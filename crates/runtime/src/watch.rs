//! Sees what changes in the repositories, and what is due: one thread, asleep unless something happens.
//!
//! The system's messages (inotify) only say where to look. What is acted upon is the folder itself: a model is loaded when
//! its files have been still for a moment and none is open for writing, so a half-copied file never is; a manifest that
//! matches decides at once. Folders whose changes the system does not tell (network file systems, too few watches) are
//! found by looking every `poll`.

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::catalogue::Entry;
use crate::lifecycle::{Job, Jobs, Stamp, Task};
use crate::repository;
use crate::runtime::Inner;
use crate::verify;
use events::{Event, Events};

/// How often it is looked for models that are due to leave; also how soon a runtime that is gone takes its thread along.
const TICK: Duration = Duration::from_millis(500);

/// Files that were in a folder before the system told of it may be open for writing: they are given so many times longer.
const UNSEEN_FACTOR: u32 = 4;

/// How long a file that is open for writing holds its model back: a writer that never closes must not do so for ever.
const WRITING_MAX: Duration = Duration::from_secs(600);

pub(crate) fn start(inner: &Arc<Inner>) -> io::Result<()> {
    let events = inner.settings.watches().then(|| {
        let mut events = Events::open()
            .inspect_err(|error| {
                tracing::warn!(%error, "the system does not tell of changes; repositories are looked at now and then");
            })
            .ok()?;
        for repository in &inner.settings.repositories {
            events.watch_repository(repository);
        }
        Some(events)
    });
    let watcher = Watcher {
        inner: Arc::downgrade(inner),
        events: events.flatten(),
        unsettled: BTreeMap::new(),
        polled: inner.tools.clock.now(),
    };
    std::thread::Builder::new()
        .name("model-watch".to_owned())
        .spawn(move || watcher.serve())
        .map(drop)
}

struct Watcher {
    inner: Weak<Inner>,
    events: Option<Events>,
    /// Models that have changed, until they are still.
    unsettled: BTreeMap<String, Unsettled>,
    polled: Instant,
}

#[derive(Debug)]
struct Unsettled {
    /// As it was when last looked at.
    stamp: Option<Stamp>,
    since: Instant,
    /// Something was there before it could be seen being written.
    unseen: bool,
    /// Files that somebody writes, and since when.
    writing: BTreeMap<std::path::PathBuf, Instant>,
}

impl Watcher {
    fn serve(mut self) {
        loop {
            let pause = match self.inner.upgrade() {
                Some(inner) if !inner.tasks.stopping() => self.round(&inner),
                _ => return,
            };
            match &mut self.events {
                Some(events) => events.wait(pause),
                None => std::thread::park_timeout(pause),
            }
        }
    }

    /// Does what is due; how long there is nothing to do unless an event comes.
    fn round(&mut self, inner: &Arc<Inner>) -> Duration {
        let now = inner.tools.clock.now();
        if inner.settings.watches() {
            self.take_events(now);
            if now.saturating_duration_since(self.polled) >= inner.settings.poll {
                self.polled = now;
                self.look_everywhere(inner, now);
            }
            self.settle(inner, now);
        }
        due(inner, now);
        if self.unsettled.is_empty() {
            TICK
        } else {
            (inner.settings.settle / 4).clamp(Duration::from_millis(5), TICK)
        }
    }

    fn take_events(&mut self, now: Instant) {
        let Some(events) = &mut self.events else {
            return;
        };
        let mut lost = false;
        for event in events.take() {
            let unseen = matches!(event, Event::Found { .. });
            let (model, file, writing) = match event {
                Event::Lost => {
                    lost = true;
                    continue;
                }
                Event::Changed { model } | Event::Found { model } => (model, None, false),
                Event::Written { model, file } => (model, Some(file), false),
                Event::Writing { model, file } => (model, Some(file), true),
            };
            let unsettled = self
                .unsettled
                .entry(model)
                .or_insert_with(|| Unsettled::new(now));
            unsettled.since = now;
            unsettled.unseen |= unseen;
            match file {
                Some(file) if writing => {
                    unsettled.writing.entry(file).or_insert(now);
                }
                Some(file) => {
                    unsettled.writing.remove(&file);
                }
                None => {}
            }
        }
        if lost {
            // More happened than the system kept: everything may have changed.
            self.polled = now.checked_sub(Duration::from_secs(86_400)).unwrap_or(now);
            // That a file was closed may be among it.
            for unsettled in self.unsettled.values_mut() {
                unsettled.writing.clear();
                unsettled.unseen = true;
                unsettled.since = now;
            }
        }
    }

    /// Every folder there is or was, whether anybody said that it has changed.
    fn look_everywhere(&mut self, inner: &Inner, now: Instant) {
        let mut names: BTreeSet<String> = inner.catalogue.models().keys().cloned().collect();
        if let Ok(found) = repository::scan(&inner.settings.repositories) {
            names.extend(found.into_iter().map(|found| found.name));
        }
        for repository in &inner.settings.repositories {
            if let Some(events) = &mut self.events {
                events.watch_repository(repository);
            }
        }
        for name in names {
            if changed(inner, &name) {
                self.unsettled
                    .entry(name)
                    .or_insert_with(|| Unsettled::new(now));
            }
        }
    }

    /// Acts on models that have been still long enough.
    fn settle(&mut self, inner: &Arc<Inner>, now: Instant) {
        let mut ready = Vec::new();
        for (name, unsettled) in &mut self.unsettled {
            let still = match unsettled.unseen {
                true => inner.settings.settle * UNSEEN_FACTOR,
                false => inner.settings.settle,
            };
            let waited = |since: Instant| now.saturating_duration_since(since);
            unsettled
                .writing
                .retain(|_, since| waited(*since) < WRITING_MAX);
            let found = repository::find(&inner.settings.repositories, name);
            let stamp = found.as_ref().and_then(|found| Stamp::of(&found.folder));
            if !unsettled.writing.is_empty() && found.is_some() {
                continue;
            }
            if unsettled.stamp != stamp {
                unsettled.stamp = stamp;
                unsettled.since = now;
                // Hashed once for each change that is seen, not at every look.
                let whole = found.is_some_and(|found| verify::whole(&found));
                if !whole {
                    continue;
                }
            } else if waited(unsettled.since) < still {
                continue;
            }
            ready.push(name.clone());
        }
        for model in ready {
            self.unsettled.remove(&model);
            if changed(inner, &model) {
                let task = Task::Follow;
                Jobs::submit(
                    inner,
                    Job {
                        model,
                        task,
                        done: None,
                    },
                );
            }
        }
    }
}

impl Unsettled {
    fn new(now: Instant) -> Self {
        Self {
            stamp: None,
            since: now,
            unseen: false,
            writing: BTreeMap::new(),
        }
    }
}

/// Whether the folder is not what was last loaded or refused.
fn changed(inner: &Inner, name: &str) -> bool {
    let found = repository::find(&inner.settings.repositories, name);
    match (inner.catalogue.get(name), found) {
        (Err(_), found) => found.is_some(),
        (Ok(_), None) => true,
        (Ok(entry), Some(found)) => {
            let stamp = Stamp::of(&found.folder);
            let life = entry.life.lock();
            !life.out && life.over.is_none() && life.seen != stamp
        }
    }
}

/// Previous versions that have been kept long enough, and models that nobody asks for.
fn due(inner: &Arc<Inner>, now: Instant) {
    let age_ms = inner.age_ms();
    let mut jobs = Vec::new();
    for entry in inner.catalogue.models().values() {
        if let Some(task) = task_due(entry, now, age_ms) {
            jobs.push((entry.name.clone(), task));
        }
    }
    for (model, task) in jobs {
        Jobs::submit(
            inner,
            Job {
                model,
                task,
                done: None,
            },
        );
    }
}

/// What is due now for one model.
pub(crate) fn task_due(entry: &Entry, now: Instant, age_ms: u64) -> Option<Task> {
    let life = entry.life.lock();
    if let Some(previous) = &life.previous
        && previous.until <= now
    {
        return Some(Task::Forget);
    }
    let idle_ms = life.memory.idle_s?.saturating_mul(1000);
    let asleep = entry.versions().ready().next().is_none();
    if asleep || age_ms.saturating_sub(entry.used_ms()) < idle_ms {
        return None;
    }
    Some(Task::Sleep)
}

#[cfg(test)]
mod tests;
