//! Room that is kept for a job at the head of the line (EASY back-filling, Lifka 1995): when and where it could start if
//! those that run end when they are expected to, and what of that is free already.

use std::collections::BTreeSet;

use super::Queue;
use super::entry::{Entry, Phase};
use super::job::JobId;
use super::world::World;
use crate::cluster::Hold;
use crate::state::{Ask, GPUS_MAX, State};

/// What is kept, and until when it is not needed.
#[derive(Debug)]
pub(super) struct Fence {
    pub head: JobId,
    /// It has waited past its bound and goes first.
    pub leads: bool,
    pub until_ms: u64,
    pub holds: Vec<Hold>,
}

/// Who is not known to end soon is expected to run on for as long as it has run, and a minute at least.
const LEAST_MS: u64 = 60_000;

/// When it is expected to be over.
pub(super) fn end_ms(entry: &Entry, now_ms: u64) -> Option<u64> {
    let since_ms = match entry.phase {
        Phase::Running { since_ms, .. } => since_ms,
        Phase::Reserved { .. } => now_ms,
        Phase::Pending { .. } | Phase::Stopping { .. } => return None,
    };
    let ran = now_ms.saturating_sub(since_ms);
    let unknown = now_ms + ran.max(LEAST_MS);
    let known = entry
        .remaining_ms()
        .map(|left| since_ms.saturating_add(left));
    Some(known.filter(|end| *end > now_ms).unwrap_or(unknown))
}

/// Who has places, by when it is over where time does not change that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    known: BTreeSet<(u64, JobId)>,
    /// Those that are to start, and those of whom nobody knows.
    open: BTreeSet<JobId>,
}

impl Ends {
    /// To be called when it has got places, and when it has started.
    pub(super) fn enter(&mut self, entry: &Entry) {
        let id = entry.job.id;
        self.open.remove(&id);
        if let Some(end) = known_end_ms(entry) {
            self.known.insert((end, id));
        } else {
            self.open.insert(id);
        }
    }

    pub(super) fn leave(&mut self, entry: &Entry) {
        self.open.remove(&entry.job.id);
        if let Some(end) = known_end_ms(entry) {
            self.known.remove(&(end, entry.job.id));
        }
    }
}

fn known_end_ms(entry: &Entry) -> Option<u64> {
    let Phase::Running { since_ms, .. } = entry.phase else {
        return None;
    };
    Some(since_ms.saturating_add(entry.remaining_ms()?))
}

impl Queue {
    /// Who is expected to be over when, soonest first.
    pub(super) fn ends(&self, now_ms: u64) -> Vec<(u64, JobId)> {
        let later = (now_ms.saturating_add(1), JobId(0));
        let late = self.ends.known.range(..later).map(|(_, id)| id);
        let others = late.chain(&self.ends.open);
        let others = others.filter_map(|id| Some((end_ms(self.entries.get(id)?, now_ms)?, *id)));
        let mut ends: Vec<_> = others.collect();
        ends.extend(self.ends.known.range(later..));
        // Nearly in order, which this sort is quick with.
        ends.sort();
        ends
    }

    /// Where and when the job could start, if what is kept for others stays so; nothing when it never could.
    pub(super) fn fence(&self, id: JobId, ends: &[(u64, JobId)], leads: bool) -> Option<Fence> {
        let (entry, asks) = (self.entries.get(&id)?, self.asks.get(&id)?);
        let now = self.cluster().states();
        let mut world = World::new(now, asks, entry.job.gang);
        let mut until_ms = None;
        for (end, other) in ends {
            world.release(self.taken.get(other)?);
            if world.fits() {
                until_ms = Some(*end);
                break;
            }
        }
        let mut holds = Vec::new();
        let mut left = entry.job.gang;
        // Nodes that have most already: there is least to wait for.
        let mut nodes: Vec<_> = (0..now.len())
            .filter(|node| world.times(*node) > 0)
            .collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(now[*node].free_milli()));
        for node in nodes {
            let members = world.times(node).min(left);
            holds.push(kept((node, members), asks, &now[node], &world.states[node]));
            left -= members;
            if left == 0 {
                break;
            }
        }
        Some(Fence {
            head: id,
            leads,
            until_ms: until_ms?,
            holds,
        })
    }

    pub(super) fn raise(&mut self, fence: &mut Fence) {
        for hold in &mut fence.holds {
            self.room.scheduler.hold(hold);
        }
    }

    pub(super) fn lower(&mut self, fence: &Fence) {
        for hold in &fence.holds {
            self.room.scheduler.unhold(hold);
        }
    }
}

/// Of what is free on a node now, what these members need beside what others give back until then.
fn kept((node, members): (usize, u32), asks: &[Ask], now: &State, then: &State) -> Hold {
    let mut after = *then;
    for _ in 0..members {
        let Some(ask) = asks.iter().find(|ask| ask.fits(&after)) else {
            break;
        };
        if ask.divides() {
            // Only GPUs that nobody has divided yet can be kept.
            let Some(slot) = ask.slots(&after).last() else {
                break;
            };
            after = ask.on_slot(&after, slot.gpu, slot.after);
            continue;
        }
        let whole = |gpu: &usize| after.free[*gpu] >= ask.milli;
        after = if ask.shares() {
            let gpus = (0..usize::from(after.gpus)).filter(whole);
            // Where least is missing now.
            let gpu = gpus.max_by_key(|gpu| now.free[*gpu]).unwrap_or(0);
            ask.on_gpu(&after, gpu)
        } else {
            ask.on_fullest(&after)
        };
    }
    let missing = |now: u32, then: u32, after: u32| {
        let needed = then - after;
        let given_back = then.saturating_sub(now);
        needed.saturating_sub(given_back)
    };
    let mut free = [0; GPUS_MAX];
    for (gpu, kept) in free.iter_mut().enumerate() {
        let [now, then, after] = [now, then, &after].map(|state| u32::from(state.free[gpu]));
        *kept = u16::try_from(missing(now, then, after)).unwrap_or(0);
    }
    Hold {
        node,
        cpu_milli: missing(now.cpu_milli, then.cpu_milli, after.cpu_milli),
        memory_mib: missing(now.memory_mib, then.memory_mib, after.memory_mib),
        free,
    }
}
