//! When those that have places are over: all of them, and those of each node.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Entry, Phase};
use super::job::JobId;
use super::room::Taken;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    all: Known,
    by_node: BTreeMap<usize, Known>,
}

/// Some jobs by when they are over, where time does not change that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    known: BTreeSet<(u64, JobId)>,
    /// Those that are to start, and those of whom nobody knows.
    open: BTreeSet<JobId>,
}

impl Ends {
    /// To be called when it has got places, when it has started, and when it has others.
    pub(super) fn enter(&mut self, entry: &Entry, taken: &[Taken]) {
        self.all.enter(entry);
        for member in taken {
            let here = self.by_node.entry(member.placement.node).or_default();
            here.enter(entry);
        }
    }

    pub(super) fn leave(&mut self, entry: &Entry, taken: &[Taken]) {
        self.all.leave(entry);
        for member in taken {
            let node = member.placement.node;
            if let Some(here) = self.by_node.get_mut(&node) {
                here.leave(entry);
                if *here == Known::default() {
                    self.by_node.remove(&node);
                }
            }
        }
    }

    pub(super) fn all(&self) -> &Known {
        &self.all
    }

    /// Nodes that have somebody.
    pub(super) fn by_node(&self) -> impl Iterator<Item = (usize, &Known)> {
        self.by_node.iter().map(|(node, known)| (*node, known))
    }
}

impl Known {
    fn enter(&mut self, entry: &Entry) {
        let id = entry.job.id;
        self.open.remove(&id);
        if let Some(end) = known_end_ms(entry) {
            self.known.insert((end, id));
        } else {
            self.open.insert(id);
        }
    }

    fn leave(&mut self, entry: &Entry) {
        self.open.remove(&entry.job.id);
        if let Some(end) = known_end_ms(entry) {
            self.known.remove(&(end, entry.job.id));
        }
    }

    /// Those whose end time changes: it is not known, or they should be over.
    pub(super) fn unsure(&self, now_ms: u64) -> impl Iterator<Item = JobId> {
        let late = self.known.range(..later(now_ms)).map(|(_, id)| id);
        late.chain(&self.open).copied()
    }

    /// The others, soonest first.
    pub(super) fn sure(&self, now_ms: u64) -> impl Iterator<Item = (u64, JobId)> {
        self.known.range(later(now_ms)..).copied()
    }
}

fn later(now_ms: u64) -> (u64, JobId) {
    (now_ms.saturating_add(1), JobId(0))
}

fn known_end_ms(entry: &Entry) -> Option<u64> {
    let Phase::Running { since_ms, .. } = entry.phase else {
        return None;
    };
    Some(since_ms.saturating_add(entry.remaining_ms()?))
}
