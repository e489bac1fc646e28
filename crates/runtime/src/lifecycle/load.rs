//! What each job does. The rule behind all of it: what serves goes on serving until what replaces it has proved itself.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use protocol::sidecar::Sidecar;

use super::plan::{Plan, Refused};
use super::residency::Weight;
use super::{
    NOT_LOADED, Override, Previous, Stamp, Task, UNLOADED, gone, leave, members, residency, retire,
    swap,
};
use crate::catalogue::{Entry, Ready, Version, Versions, Woken};
use crate::loader;
use crate::metrics::SwapOutcome;
use crate::repository;
use crate::runtime::Inner;
use crate::verify::Check;
use crate::watch;

pub(super) fn run(inner: &Arc<Inner>, model: &str, task: Task) -> Result<(), String> {
    let known = inner.catalogue.get(model).ok();
    let entry = || {
        known
            .clone()
            .ok_or_else(|| "there is no such model".to_owned())
    };
    match task {
        Task::Start => {
            let entry = entry()?;
            let loaded = load(inner, &entry, How::default());
            members::start(inner, &entry);
            loaded
        }
        Task::Register => register(inner, &entry()?),
        Task::Follow => follow(inner, model, known.as_ref()),
        Task::Wake(entry) => wake(inner, &entry),
        Task::Load(request) => {
            let over = Override::of(inner, &request)?;
            let fresh = || Versions::one(1, Version::Unloaded(NOT_LOADED.to_owned()));
            let entry = inner.catalogue.entry(model, fresh);
            entry.life.lock().out = false;
            let forced = true;
            load(inner, &entry, How { forced, over })
        }
        Task::Unload => {
            let entry = entry()?;
            leave::take_out(inner, &entry, leave::unloaded);
            entry.life.lock().out = true;
            Ok(())
        }
        Task::RollBack { why, judged } => swap::roll_back(inner, &entry()?, &why, judged),
        Task::Forget => {
            // The job may have waited behind a load that has put another version there.
            let due = |entry: &Arc<Entry>| {
                let now = inner.tools.clock.now();
                matches!(
                    watch::task_due(entry, now, inner.age_ms()),
                    Some(Task::Forget)
                )
            };
            if let Some(entry) = known.filter(due) {
                leave::forget(inner, &entry);
            }
            Ok(())
        }
        Task::Sleep => {
            let entry = entry()?;
            let now = inner.tools.clock.now();
            // Somebody may have asked for it since.
            if !matches!(
                watch::task_due(&entry, now, inner.age_ms()),
                Some(Task::Sleep)
            ) {
                return Ok(());
            }
            tracing::info!(model, "model leaves memory: nobody asks for it");
            // First: who sees it asleep finds it counted.
            inner.metrics.lifecycle.evictions.inc();
            leave::take_out(inner, &entry, leave::asleep);
            Ok(())
        }
    }
}

#[derive(Debug, Default)]
struct How {
    /// Even if nothing has changed.
    forced: bool,
    over: Option<Arc<Override>>,
}

/// Loads what the folder (or the client) says, and replaces what serves if it can.
fn load(inner: &Arc<Inner>, entry: &Arc<Entry>, how: How) -> Result<(), String> {
    let plan = match Plan::read(inner, &entry.name, how.over) {
        Ok(plan) => plan,
        Err(refused) => return Err(refuse(inner, entry, refused)),
    };
    let before = Arc::clone(&entry.versions());
    let _alone = residency::admit(inner, entry, estimate(entry, &plan))?;
    show_progress(entry, &before, &plan);
    let mut built = BTreeMap::new();
    for number in &plan.versions {
        let outcome = version(inner, &plan, *number, (&before, how.forced));
        if let (Ok(ready), None) = (&outcome, before.ready().next()) {
            let ready = ready.clone();
            entry.amend(*number, |_| Some(Version::Ready(ready.clone())));
        }
        built.insert(*number, outcome);
    }
    let failures: Vec<String> = built
        .iter()
        .filter_map(|(number, outcome)| {
            let reason = outcome.as_ref().err()?;
            Some(match plan.versions.len() {
                1 => reason.clone(),
                _ => format!("version {number}: {reason}"),
            })
        })
        .collect();
    settle(inner, entry, (&plan, &before), built);
    residency::shrink(inner, entry);
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("; "))
    }
}

/// What a load is likely to need: what it took last time, else its files.
fn estimate(entry: &Entry, plan: &Plan) -> Weight {
    let life = entry.life.lock();
    let mut all = Weight::default();
    for number in &plan.versions {
        let known = life.weights.get(number).copied();
        let one = known.unwrap_or_else(|| Weight {
            held: plan.bytes(*number),
            working: 0,
        });
        all.held += one.held;
        all.working = all.working.max(one.working);
    }
    all
}

/// What serves goes on; what is new is seen to be loading.
fn show_progress(entry: &Entry, before: &Versions, plan: &Plan) {
    let mut shown = Versions {
        states: BTreeMap::new(),
        labels: Arc::clone(&before.labels),
        first: !before.states.values().any(Version::answers),
    };
    for (number, ready) in before.ready() {
        shown.states.insert(number, Version::Ready(ready.clone()));
    }
    for number in &plan.versions {
        let awaited = before.states.get(number).is_some_and(Version::answers);
        let state = if awaited {
            Version::Waking
        } else {
            Version::Loading
        };
        shown.states.entry(*number).or_insert(state);
    }
    if before.ready().next().is_none() {
        shown.labels = labels(&plan.definition.sidecar);
    }
    entry.publish(shown);
}

fn labels(sidecar: &Sidecar) -> Arc<BTreeMap<String, u64>> {
    Arc::new(sidecar.versions.labels.clone())
}

/// One version that may serve: unchanged, or built, checked and compared.
fn version(
    inner: &Arc<Inner>,
    plan: &Plan,
    number: u64,
    (before, forced): (&Versions, bool),
) -> Result<Ready, String> {
    let digest = plan
        .digest(number)
        .map_err(|reason| log_refused(plan, number, reason))?;
    let live = before.states.get(&number).and_then(Version::ready);
    if let Some(live) = live.filter(|live| !forced && live.digest == digest) {
        let note = String::new();
        return Ok(Ready {
            note,
            ..live.clone()
        });
    }
    let attempt = || -> Result<Ready, String> {
        let check = Check {
            integrity: &plan.definition.sidecar.integrity,
            node_key: inner.settings.public_key.as_deref(),
        };
        check.version(&plan.found, number)?;
        let (model, weight) = residency::measured(inner, plan.bytes(number), || {
            loader::build(
                inner,
                &plan.definition,
                (number, &plan.found.versions[&number]),
            )
        })?;
        if !plan.holds() {
            return Err("the model's files changed while it was loaded".to_owned());
        }
        let reference = before.find(None).and_then(|(_, version)| version.model());
        if let Some(reference) = reference {
            swap::compare(inner, reference, &model, &plan.definition.sidecar)?;
        }
        let over = plan.over.clone();
        let (model, note) = (Arc::new(model), String::new());
        Ok(Ready {
            model,
            digest,
            bytes: weight.held,
            working: weight.working,
            note,
            over,
        })
    };
    // Here, too: versions that serve already go on serving.
    let built = catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|_| Err("loading panicked".to_owned()));
    inner.metrics.lifecycle.loaded(built.is_ok());
    let ready = built.map_err(|reason| log_refused(plan, number, reason))?;
    // Of an ensemble its members decide.
    if let Some(engine) = ready.model.by_engine() {
        tracing::info!(
            model = ready.model.name,
            version = number,
            engine = engine.engine,
            lanes = engine.lanes,
            load_ms = ready.model.load_ms,
            bytes = ready.bytes,
            working = ready.working,
            "model is ready"
        );
    }
    Ok(ready)
}

/// Logs why, once, where the error stops; only the log knows the folder.
fn log_refused(plan: &Plan, version: u64, reason: String) -> String {
    tracing::error!(
        model = plan.found.name,
        version,
        folder = %plan.found.folder.display(),
        reason,
        "model is unavailable"
    );
    reason
}

/// The flip, and what becomes of what was there before.
fn settle(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    (plan, before): (&Plan, &Arc<Versions>),
    built: BTreeMap<u64, Result<Ready, String>>,
) {
    let sidecar = &plan.definition.sidecar;
    let any = built.values().any(Result::is_ok);
    let failed = built.iter().filter(|(_, outcome)| outcome.is_err());
    let failed: Vec<u64> = failed.map(|(number, _)| *number).collect();
    let mut next = successor(plan, before, built);
    let had = before.ready().next().is_some();
    let known = |ready: &Ready| {
        let mut old = before.ready();
        old.any(|(_, old)| Arc::ptr_eq(&old.model, &ready.model))
    };
    let changed = next.ready().any(|(_, ready)| !known(ready));
    entry.touch(inner.age_ms());
    if had && changed {
        swap::watch(inner, before, &next, sidecar);
    }
    let leaving = gone(before, &next);
    remember(inner, entry, (plan, &next));
    crate::ensemble::judge(&inner.catalogue, before, &mut next);
    entry.publish(next);
    if had && (changed || !any) {
        let outcome = if any {
            SwapOutcome::Swapped
        } else {
            SwapOutcome::Refused
        };
        inner.metrics.lifecycle.swapped(outcome);
    }
    if had && changed {
        keep_previous(inner, entry, before, sidecar);
    } else {
        retire::retire(inner, entry, leaving);
    }
    for number in failed {
        // Its series began when it was built; it may never serve.
        retire::forget_unused(inner, entry, number);
    }
}

/// What serves after a load: all that could be built; what serves already, where nothing better came of it.
fn successor(
    plan: &Plan,
    before: &Versions,
    built: BTreeMap<u64, Result<Ready, String>>,
) -> Versions {
    let any = built.values().any(Result::is_ok);
    let mut next = Versions::default();
    for (number, outcome) in built {
        let live = before.states.get(&number).and_then(Version::ready);
        let state = match (outcome, live) {
            (Ok(ready), _) => Version::Ready(ready),
            (Err(reason), Some(live)) => Version::Ready(noted(live, &reason)),
            (Err(reason), None) => Version::Unavailable(reason),
        };
        next.states.insert(number, state);
    }
    for (number, state) in &before.states {
        if next.states.contains_key(number) {
            continue;
        }
        let state = match state {
            Version::Ready(ready) if !any => Version::Ready(ready.clone()),
            // It was in memory once, and could be again.
            Version::Ready(_) | Version::Unloading | Version::Unloaded(_)
                if plan.found.versions.contains_key(number) && state.reason() != NOT_LOADED =>
            {
                Version::Unloaded(UNLOADED.to_owned())
            }
            _ => continue,
        };
        next.states.insert(*number, state);
    }
    next.labels = if any {
        labels(&plan.definition.sidecar)
    } else {
        Arc::clone(&before.labels)
    };
    next
}

fn remember(inner: &Inner, entry: &Entry, (plan, next): (&Plan, &Versions)) {
    let memory = plan.definition.sidecar.memory;
    inner.residency.look_after(memory);
    let mut life = entry.life.lock();
    life.seen = Some(plan.stamp.clone());
    life.over.clone_from(&plan.over);
    life.memory = memory;
    life.weights
        .retain(|number, _| plan.found.versions.contains_key(number));
    for (number, ready) in next.ready() {
        let weight = Weight {
            held: ready.bytes,
            working: ready.working,
        };
        life.weights.insert(number, weight);
    }
}

fn noted(live: &Ready, reason: &str) -> Ready {
    Ready {
        note: format!("not replaced: {reason}"),
        ..live.clone()
    }
}

/// The one before the previous goes; the previous stays for a while.
fn keep_previous(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    before: &Arc<Versions>,
    sidecar: &Sidecar,
) {
    leave::forget(inner, entry);
    let keep = std::time::Duration::from_secs(sidecar.swap.keep_previous_s);
    let until = inner.tools.clock.now() + keep;
    let versions = Arc::clone(before);
    entry.life.lock().previous = Some(Previous { versions, until });
    if keep.is_zero()
        || inner
            .residency
            .budget()
            .is_some_and(|_| residency::full(inner))
    {
        leave::forget(inner, entry);
    }
}

/// There is nothing to build; what serves goes on, and says why it is not replaced.
fn refuse(inner: &Arc<Inner>, entry: &Arc<Entry>, refused: Refused) -> String {
    let Refused {
        reason,
        stamp,
        latest,
        gone,
    } = refused;
    if gone {
        return reason;
    }
    tracing::error!(
        model = entry.name,
        version = latest,
        reason,
        "model is unavailable"
    );
    let before = Arc::clone(&entry.versions());
    let mut next = Versions::clone(&before);
    let mut live = false;
    for state in next.states.values_mut() {
        if let Version::Ready(ready) = state {
            *ready = noted(ready, &reason);
            live = true;
        }
    }
    if live {
        inner.metrics.lifecycle.swapped(SwapOutcome::Refused);
    } else {
        next = Versions::one(latest, Version::Unavailable(reason.clone()));
    }
    entry.publish(next);
    entry.life.lock().seen = stamp;
    inner.metrics.lifecycle.loaded(false);
    reason
}

/// Reads what the folder says, so that mistakes are seen at once, and waits for a request.
fn register(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Result<(), String> {
    let plan = match Plan::read(inner, &entry.name, None) {
        Ok(plan) => plan,
        Err(refused) => return Err(refuse(inner, entry, refused)),
    };
    let sidecar = &plan.definition.sidecar;
    if sidecar.memory.pin {
        return load(inner, entry, How::default());
    }
    let mut next = Versions {
        states: plan
            .versions
            .iter()
            .map(|number| (*number, Version::Asleep))
            .collect(),
        labels: labels(sidecar),
        first: false,
    };
    let before = entry.versions();
    for (number, ready) in before.ready() {
        // Woken between being listed and being read.
        next.states.insert(number, Version::Ready(ready.clone()));
    }
    drop(before);
    let mut life = entry.life.lock();
    life.memory = sidecar.memory;
    inner.residency.look_after(sidecar.memory);
    life.seen = Some(plan.stamp);
    drop(life);
    entry.publish(next);
    Ok(())
}

/// The folder is not what it was.
fn follow(inner: &Arc<Inner>, model: &str, known: Option<&Arc<Entry>>) -> Result<(), String> {
    let found = repository::find(&inner.settings.repositories, model);
    let Some(found) = found else {
        let unreachable = |path: &std::path::PathBuf| !path.is_dir();
        let Some(entry) = known else { return Ok(()) };
        let overridden = entry.life.lock().over.is_some();
        // A volume that is not there for a moment takes no model away.
        if overridden || inner.settings.repositories.iter().any(unreachable) {
            return Ok(());
        }
        tracing::info!(model, "model is gone from its repository");
        leave::take_out(inner, entry, leave::unloaded);
        inner.catalogue.remove(entry);
        return Ok(());
    };
    let latest = found.latest();
    let entry = inner
        .catalogue
        .entry(model, || Versions::one(latest, Version::Loading));
    let (out, unchanged) = {
        let life = entry.life.lock();
        let unchanged = life.seen.is_some() && life.seen == Stamp::of(&found.folder);
        (life.out || life.over.is_some(), unchanged)
    };
    if out || unchanged {
        return Ok(());
    }
    let in_memory = entry.versions().ready().next().is_some();
    if inner.residency.budget().is_some() && !in_memory {
        register(inner, &entry)
    } else {
        load(inner, &entry, How::default())
    }
}

/// For a request that waits.
fn wake(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Result<(), String> {
    let asleep = |version: &Version| matches!(version, Version::Asleep);
    if !entry.versions().states.values().any(asleep) {
        return Ok(());
    }
    let over = entry.life.lock().over.clone();
    let repositories = &inner.settings.repositories;
    let gone = over.is_none() && repository::find(repositories, &entry.name).is_none();
    if gone && inner.settings.watches() {
        // Known before the disk has told.
        return follow(inner, &entry.name, Some(entry));
    }
    load(
        inner,
        entry,
        How {
            forced: false,
            over,
        },
    )
}

/// A job panicked outside of what catches its own panics.
pub(super) fn panicked(inner: &Arc<Inner>, model: &str) -> String {
    let reason = "loading panicked".to_owned();
    if let Ok(entry) = inner.catalogue.get(model) {
        let loading = |version: &Version| {
            let stuck = matches!(version, Version::Loading | Version::Waking);
            stuck.then(|| Version::Unavailable("loading panicked".to_owned()))
        };
        let numbers: Vec<u64> = entry.versions().states.keys().copied().collect();
        for number in numbers {
            entry.amend(number, loading);
        }
    }
    tracing::error!(model, reason, "model is unavailable");
    reason
}

/// Requests that wait for this model look again, or hear that there is no room.
pub(super) fn tell_waiting(entry: &Entry, outcome: &Result<(), String>) {
    let asleep = entry
        .versions()
        .states
        .values()
        .any(|version| matches!(version, Version::Asleep));
    let woken = match outcome {
        Err(reason) if asleep => Woken::NoRoom(reason.clone()),
        _ => Woken::Done,
    };
    for waiter in std::mem::take(&mut *entry.waiting.lock()) {
        // A waiter that has gone misses nothing.
        let _gone = waiter.send(woken.clone());
    }
}
