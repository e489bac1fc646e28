//! Who is in memory under a budget: loaded on first use; the one used longest ago makes room, never one in use.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use protocol::sidecar::Memory;

use super::{load, retire};
use crate::catalogue::{Entry, Ready, Version};
use crate::runtime::Inner;

/// How long a load waits for models in use to become idle, and for what it evicts to be freed.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

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

/// Bytes of all models in memory, those included that are about to go.
pub(crate) fn used(inner: &Inner) -> u64 {
    let mut bytes = inner.retired.bytes();
    for entry in inner.catalogue.models().values() {
        let now = entry.versions();
        bytes += now.ready().map(|(_, ready)| ready.bytes).sum::<u64>();
        if let Some(previous) = &entry.life.lock().previous {
            let only = super::gone(&previous.versions, &now);
            bytes += only.iter().map(|(_, ready)| ready.bytes).sum::<u64>();
        }
    }
    bytes
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
    need: u64,
) -> Result<Option<MutexGuard<'a, ()>>, String> {
    let Some(budget) = inner.residency.budget else {
        return Ok(None);
    };
    let alone = inner.residency.one.lock();
    if need > budget {
        return Err(format!(
            "it takes {}, more than the node's whole memory budget of {}",
            mebibytes(need),
            mebibytes(budget)
        ));
    }
    let began = inner.tools.clock.now();
    while used(inner).saturating_add(need) > budget {
        let crowded = staying(inner).saturating_add(need) > budget;
        if crowded && evict_one(inner, entry) {
            continue;
        }
        let waited = inner.tools.clock.now().saturating_duration_since(began);
        if waited >= PATIENCE || inner.tasks.stopping() {
            return Err(format!(
                "it takes {} and there is no room: {} of {} are taken by models in use",
                mebibytes(need),
                mebibytes(used(inner)),
                mebibytes(budget)
            ));
        }
        inner.retired.wait(LOOK);
    }
    Ok(Some(alone))
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
        load::forget(inner, &entry);
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
) -> Result<(T, u64), String> {
    let alone = inner.residency.budget.is_some();
    let own = || {
        if alone {
            (inner.give_back)();
        }
        anonymous_bytes()
    };
    let before = own();
    let model = load()?;
    let grown = own().saturating_sub(before);
    let bytes = match model.bytes() {
        0 => grown.max(file_bytes),
        known if alone => known.max(grown),
        known => known,
    };
    Ok((model, bytes.max(BYTES_MIN)))
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

/// Of this process without what is mapped from files, as the kernel counts; 0 where it does not say.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes = kibibytes.and_then(|text| text.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
