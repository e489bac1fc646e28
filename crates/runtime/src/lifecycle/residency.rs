//! Who is in memory under a budget: loaded on first use; the one used longest ago makes room, never one in use.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use protocol::sidecar::Memory;

use super::{leave, retire};
use crate::catalogue::{Entry, Ready, Version};
use crate::runtime::Inner;

/// How long a load waits for models in use to become idle, and for what it evicts to be freed.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

/// How long a load waits for other models to be freed that are in nobody's way: some are held by long requests.
const STILLNESS: Duration = Duration::from_millis(200);

/// The least that a model is counted with: its queue, its statistics, its metrics.
const BYTES_MIN: u64 = 16 << 10;

#[derive(Debug)]
pub(crate) struct Residency {
    budget: Option<u64>,
    /// Some model leaves memory when nobody asks for it.
    idlers: AtomicBool,
    /// Under a budget loads go one at a time: what each takes can be measured, and no two count on the same room.
    one: Mutex<()>,
}

impl Residency {
    pub(crate) fn new(budget: Option<u64>) -> Self {
        Self {
            budget,
            idlers: AtomicBool::new(false),
            one: Mutex::new(()),
        }
    }

    /// Whether it matters when a model was used last; it costs a look at the clock.
    pub(crate) fn tracks(&self) -> bool {
        self.budget.is_some() || self.idlers.load(Ordering::Relaxed)
    }

    pub(crate) fn look_after(&self, memory: Memory) {
        if memory.idle_s.is_some() {
            self.idlers.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn budget(&self) -> Option<u64> {
        self.budget
    }
}

/// What a model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(super) held: u64,
    /// While a call runs. A load takes more for a moment, which nobody can know before it.
    pub(super) working: u64,
}

/// Bytes of all models in memory, those included that are about to go, and of the calls that may run at one moment.
pub(crate) fn used(inner: &Inner) -> u64 {
    let mut bytes = inner.retired.bytes();
    let cores = inner.tools.compute.cores();
    let mut calls = Vec::new();
    for entry in inner.catalogue.models().values() {
        let now = entry.versions();
        for (_, ready) in now.ready() {
            bytes += ready.bytes;
            let lanes = ready.model.by_engine().map_or(0, |engine| engine.lanes);
            calls.extend(std::iter::repeat_n(ready.working, lanes.min(cores)));
        }
        if let Some(previous) = &entry.life.lock().previous {
            let only = super::gone(&previous.versions, &now);
            bytes += only.iter().map(|(_, ready)| ready.bytes).sum::<u64>();
        }
    }
    bytes + largest(calls, cores)
}

/// Calls run on compute threads, so no more of them take memory at one moment than there are; which ones is not known.
fn largest(mut calls: Vec<u64>, cores: usize) -> u64 {
    calls.sort_unstable_by(|one, other| other.cmp(one));
    calls.iter().take(cores).sum()
}

/// As [`used`], without what leaves already: it makes room by itself, and nothing else need go for it.
fn staying(inner: &Inner) -> u64 {
    used(inner).saturating_sub(inner.retired.bytes())
}

pub(super) fn full(inner: &Inner) -> bool {
    inner
        .residency
        .budget
        .is_some_and(|budget| used(inner) > budget)
}

/// Makes room for a load, and lets no other load take it meanwhile. The error is for the caller: try again later.
pub(super) fn admit<'a>(
    inner: &'a Arc<Inner>,
    entry: &Arc<Entry>,
    weight: Weight,
) -> Result<Option<MutexGuard<'a, ()>>, String> {
    let Some(budget) = inner.residency.budget else {
        return Ok(None);
    };
    let alone = inner.residency.one.lock();
    if weight.held > budget {
        return Err(format!(
            "it takes {}, more than the node's whole memory budget of {}",
            mebibytes(weight.held),
            mebibytes(budget)
        ));
    }
    // What calls take is measured beside other calls: it may cost a model its company, not its service.
    let need = weight.held.saturating_add(weight.working).min(budget);
    let began = inner.tools.clock.now();
    while used(inner).saturating_add(need) > budget {
        let crowded = staying(inner).saturating_add(need) > budget;
        if crowded && evict_one(inner, entry) {
            continue;
        }
        if since(inner, began) >= PATIENCE || inner.tasks.stopping() {
            return Err(format!(
                "it takes {} and there is no room: {} of {} are taken by models in use",
                mebibytes(need),
                mebibytes(used(inner)),
                mebibytes(budget)
            ));
        }
        inner.retired.wait(LOOK);
    }
    // What is freed while a load is measured would be taken off its weight.
    while inner.retired.bytes() > 0 && since(inner, began) < STILLNESS {
        inner.retired.wait(LOOK);
    }
    Ok(Some(alone))
}

fn since(inner: &Inner, began: Instant) -> Duration {
    inner.tools.clock.now().saturating_duration_since(began)
}

/// After a load that took more than expected: others leave until all fits again.
pub(super) fn shrink(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let budget = inner.residency.budget.unwrap_or(u64::MAX);
    while staying(inner) > budget && evict_one(inner, entry) {}
    inner.metrics.lifecycle.resident(used(inner));
}

/// Puts the model to sleep that was used longest ago, if one is idle: first what is only kept to come back.
fn evict_one(inner: &Arc<Inner>, but: &Arc<Entry>) -> bool {
    let models = inner.catalogue.models();
    if let Some(entry) = models
        .values()
        .find(|entry| entry.life.lock().previous.is_some())
    {
        let entry = Arc::clone(entry);
        drop(models);
        leave::forget(inner, &entry);
        return true;
    }
    let candidate = |entry: &&Arc<Entry>| {
        let pinned = entry.life.lock().memory.pin;
        !pinned && !Arc::ptr_eq(entry, but) && idle(entry)
    };
    let oldest = models
        .values()
        .filter(candidate)
        .min_by_key(|entry| entry.used_ms());
    let Some(oldest) = oldest.map(Arc::clone) else {
        return false;
    };
    drop(models);
    tracing::info!(model = oldest.name, "model leaves memory to make room");
    let mut leaving = Vec::new();
    let ready: Vec<(u64, Ready)> = {
        let versions = oldest.versions();
        versions
            .ready()
            .map(|(number, ready)| (number, ready.clone()))
            .collect()
    };
    for (number, ready) in ready {
        // Only what is still published: a client may have replaced it in this moment.
        let taken = Cell::new(false);
        oldest.amend(number, |version| {
            let same = version
                .model()
                .is_some_and(|model| Arc::ptr_eq(model, &ready.model));
            taken.set(same);
            same.then_some(Version::Asleep)
        });
        if taken.get() {
            leaving.push((number, ready));
        }
    }
    inner.metrics.lifecycle.evictions.inc();
    retire::retire(inner, &oldest, leaving);
    true
}

/// In memory, and no request holds any of it.
fn idle(entry: &Entry) -> bool {
    let versions = entry.versions();
    let mut ready = versions.ready().peekable();
    ready.peek().is_some() && ready.all(|(_, ready)| Arc::strong_count(&ready.model) == 1)
}

/// Runs a load and says what it took: what the engine measured, but never less than its files, of which at least the
/// weights are in memory. Under a budget loads go one at a time, and what the process has grown by counts as well: it holds
/// what the first calls took and what the engine keeps for the next ones, which may be many times the weights.
pub(super) fn measured<T: Weighs>(
    inner: &Inner,
    file_bytes: u64,
    load: impl FnOnce() -> Result<T, String>,
) -> Result<(T, Weight), String> {
    let alone = inner.residency.budget.is_some();
    let own = || {
        if alone {
            (inner.give_back)();
        }
        anonymous_bytes()
    };
    let before = own();
    if alone {
        forget_peak();
    }
    let model = load()?;
    let peak = if alone { status("VmHWM:") } else { 0 };
    let grown = own().saturating_sub(before);
    let working = peak.saturating_sub(status("VmRSS:"));
    let bytes = match model.bytes() {
        0 => grown.max(file_bytes),
        known if alone => known.max(grown),
        known => known,
    };
    let held = bytes.max(BYTES_MIN);
    let working = if alone { working } else { 0 };
    Ok((model, Weight { held, working }))
}

pub(super) trait Weighs {
    /// As the engine measured it; 0 when it did not.
    fn bytes(&self) -> u64;
}

impl Weighs for crate::model::Model {
    fn bytes(&self) -> u64 {
        self.by_engine()
            .map_or(0, |engine| engine.queue.loaded.memory_bytes())
    }
}

/// Of this process without what is mapped from files.
fn anonymous_bytes() -> u64 {
    status("RssAnon:")
}

/// From here on a load only calls what it has built: the most that this takes is what calls will take.
pub(crate) fn calls_begin(inner: &Inner) {
    if inner.residency.budget.is_some() {
        (inner.give_back)();
        forget_peak();
    }
}

/// Has the kernel measure the process's peak from here on. Where it does not, calls count as taking nothing.
fn forget_peak() {
    // proc(5): 5 resets `VmHWM` to what is resident now.
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the memory of calls cannot be measured");
    }
}

/// One number of this process, as the kernel counts; 0 where it does not say.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes = kibibytes.and_then(|text| text.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_for_as_many_calls_as_there_are_threads() {
        for (calls, cores, room) in [
            (&[][..], 2, 0),
            (&[5], 2, 5),
            (&[1, 7, 3, 7], 2, 14),
            (&[1, 2, 3], 8, 6),
        ] {
            assert_eq!(largest(calls.to_vec(), cores), room, "{calls:?}");
        }
    }

    #[test]
    fn what_a_load_takes_for_a_moment_is_seen() {
        const BYTES: usize = 64 << 20;
        forget_peak();
        let before = status("VmRSS:");
        let buffer = std::hint::black_box(vec![1_u8; BYTES]);
        drop(buffer);
        assert!(status("VmHWM:") >= before + (BYTES as u64) * 9 / 10);
        forget_peak();
        assert!(status("VmHWM:") < before + (BYTES as u64) / 2);
    }
}
