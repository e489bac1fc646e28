//! Room that is kept for a job at the head of the line (EASY back-filling, Lifka 1995): when and where it could start if
//! those that run end when they are expected to, and what of that is free already.

use super::Queue;
use super::ends::Known;
use super::entry::{Entry, Phase};
use super::job::JobId;
use super::round::Round;
use super::world::{self, World};
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

impl Queue {
    /// Who is expected to be over when, soonest first.
    pub(super) fn ends(&self, now_ms: u64) -> Vec<(u64, JobId)> {
        let mut ends = Vec::new();
        self.soonest_first(self.ends.all(), now_ms, None, &mut ends);
        ends
    }

    /// Of these, those that are expected to be over no later than the last, if there is one.
    fn soonest_first(
        &self,
        of: &Known,
        now_ms: u64,
        last: Option<(u64, JobId)>,
        ends: &mut Vec<(u64, JobId)>,
    ) {
        ends.clear();
        let others = of.unsure(now_ms);
        ends.extend(others.filter_map(|id| Some((end_ms(self.entries.get(&id)?, now_ms)?, id))));
        let sure = of.sure(now_ms);
        ends.extend(sure.take_while(|end| last.is_none_or(|last| *end <= last)));
        // Nearly in order, which this sort is quick with.
        ends.sort();
    }

    /// Where and when the job could start, if what is kept for others stays so; nothing when it never could.
    pub(super) fn fence(&self, id: JobId, round: &mut Round) -> Option<Fence> {
        let (entry, asks) = (self.entries.get(&id)?, self.asks.get(&id)?);
        let now_ms = round.now_ms;
        let (until_ms, holds) =
            if entry.job.gang == 1 && !world::fits(self.cluster().states(), asks, 1) {
                self.soonest_for_one(asks, now_ms)?
            } else {
                let ends = round.ends.get_or_insert_with(|| self.ends(now_ms));
                self.soonest_for(asks, entry.job.gang, ends)?
            };
        Some(Fence {
            head: id,
            leads: round.leads.contains(&id),
            until_ms,
            holds,
        })
    }

    /// For one member that fits nowhere now. Each node is looked at by itself, and of those there only who ends no later than what
    /// would do elsewhere: few of all that run.
    pub(super) fn soonest_for_one(&self, asks: &[Ask], now_ms: u64) -> Option<(u64, Vec<Hold>)> {
        let now = self.cluster().states();
        let mut best: Option<((u64, JobId), usize, State)> = None;
        let mut ends = Vec::new();
        for (node, known) in self.ends.by_node() {
            let state = &now[node];
            if !asks.iter().any(|ask| ask.kinds.contains(state.kind)) {
                continue;
            }
            let last = best.as_ref().map(|(end, ..)| *end);
            self.soonest_first(known, now_ms, last, &mut ends);
            let mut then = *state;
            for end in &ends {
                let members = self.taken.get(&end.1).into_iter().flatten();
                let here = members.filter(|member| member.placement.node == node);
                here.for_each(|member| world::release(&mut then, member));
                if !world::fits(&[then], asks, 1) {
                    continue;
                }
                let better = best.as_ref().is_none_or(|(sooner, other, _)| {
                    end < sooner || end == sooner && now[*other].free_milli() < state.free_milli()
                });
                if better {
                    best = Some((*end, node, then));
                }
                break;
            }
        }
        let ((until_ms, _), node, then) = best?;
        Some((until_ms, vec![kept((node, 1), asks, &now[node], &then)]))
    }

    pub(super) fn soonest_for(
        &self,
        asks: &[Ask],
        gang: u32,
        ends: &[(u64, JobId)],
    ) -> Option<(u64, Vec<Hold>)> {
        let now = self.cluster().states();
        let mut world = World::new(now, asks, gang);
        let mut until_ms = None;
        for (end, other) in ends {
            world.release(self.taken.get(other)?);
            if world.fits() {
                until_ms = Some(*end);
                break;
            }
        }
        let mut holds = Vec::new();
        let mut left = gang;
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
        Some((until_ms?, holds))
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
