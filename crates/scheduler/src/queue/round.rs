//! What is known in the course of one step.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::head::Fence;
use super::job::JobId;
use crate::hash::Fast;
use crate::state::Ask;

/// Searches for jobs to stop or to move, in one step. Each looks at all that run; who comes later is looked at in the next step.
pub(super) const SEARCHES_MAX: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Round {
    pub now_ms: u64,
    pub number: u64,
    /// Those that go first because they have waited past their bounds.
    pub leads: BTreeSet<JobId>,
    /// The first in line that has to wait for room.
    pub head: Option<JobId>,
    pub fences: Vec<Fence>,
    known: HashMap<Vec<Ask>, Known, Fast>,
    pub ends: Option<Vec<(u64, JobId)>>,
    pub searches: u32,
    /// Members that may still be moved.
    pub moves: usize,
    /// Nothing may start any more before the next step.
    pub closed: bool,
    /// Nor of these tenants, for the job that waits longest for its tenant's quota.
    pub closed_for: BTreeMap<String, JobId>,
    /// Others were stopped or moved: who was passed over may fit now.
    pub afresh: bool,
    /// Counts what changed the room or who has what of it.
    changes: u64,
    /// Groups for whom nobody can be stopped or moved, and the count of changes when that was so.
    barren: HashMap<(usize, Search), u64, Fast>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Search {
    Stop,
    Move,
}

/// Of members that take the same.
#[derive(Debug, Default)]
struct Known {
    /// So many did not find places with so many fences open.
    shut: Vec<(u32, usize)>,
    /// For so many no room can be kept.
    never: Option<u32>,
    /// So many would find places if nothing were kept for others.
    kept: u32,
}

impl Round {
    pub(super) fn new(now_ms: u64, number: u64, moves: usize) -> Self {
        Self {
            now_ms,
            number,
            moves,
            ..Self::default()
        }
    }

    pub(super) fn changed(&mut self) {
        self.changes += 1;
    }

    /// Others were stopped or moved.
    pub(super) fn begin_afresh(&mut self) {
        self.known.clear();
        self.ends = None;
        self.afresh = true;
        self.changed();
    }

    /// The first so many fences are not needed before this moment. Those after the first that is stay shut: later ones were
    /// found beside earlier ones.
    pub(super) fn opens(&self, end_ms: u64) -> usize {
        let fences = self.fences.iter();
        fences.take_while(|fence| end_ms <= fence.until_ms).count()
    }

    /// These members are known to find no places with so many fences open.
    pub(super) fn shut(&self, asks: &[Ask], gang: u32, opened: usize) -> bool {
        let known = self.known.get(asks);
        let mut shut = known.into_iter().flat_map(|known| &known.shut);
        shut.any(|(failed, fences)| gang >= *failed && opened <= *fences)
    }

    pub(super) fn shuts(&mut self, asks: &[Ask], gang: u32, opened: usize) {
        let known = self.known.entry(asks.to_vec()).or_default();
        known
            .shut
            .retain(|(failed, fences)| *failed < gang || *fences > opened);
        known.shut.push((gang, opened));
    }

    /// Who takes at most so long may find places where these members did not.
    pub(super) fn most_ms(&self, asks: &[Ask], gang: u32) -> Option<u64> {
        let opened = (0..self.fences.len()).find(|opened| !self.shut(asks, gang, opened + 1))?;
        let until = self.fences[..=opened].iter().map(|fence| fence.until_ms);
        Some(until.min()?.saturating_sub(self.now_ms))
    }

    pub(super) fn kept(&self, asks: &[Ask], gang: u32) -> bool {
        self.known.get(asks).is_some_and(|known| known.kept >= gang)
    }

    pub(super) fn is_kept(&mut self, asks: &[Ask], gang: u32) {
        let known = self.known.entry(asks.to_vec()).or_default();
        known.kept = known.kept.max(gang);
    }

    pub(super) fn never(&self, asks: &[Ask], gang: u32) -> bool {
        let known = self.known.get(asks).and_then(|known| known.never);
        known.is_some_and(|never| gang >= never)
    }

    pub(super) fn is_never(&mut self, asks: &[Ask], gang: u32) {
        let known = self.known.entry(asks.to_vec()).or_default();
        known.never = Some(known.never.map_or(gang, |never| never.min(gang)));
    }

    /// Whether a search for this group is of use; it counts in any case.
    pub(super) fn may_search(&mut self, group: Option<usize>, search: Search) -> bool {
        self.searches += 1;
        let barren = group.and_then(|group| self.barren.get(&(group, search)));
        barren.is_none_or(|changes| *changes != self.changes)
    }

    pub(super) fn in_vain(&mut self, group: Option<usize>, search: Search) {
        if let Some(group) = group {
            self.barren.insert((group, search), self.changes);
        }
    }

    /// For the plain way of doing it: nothing is remembered.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.barren.clear();
    }
}
