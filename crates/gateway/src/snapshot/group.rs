use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::upstream::Upstream;

/// Somebody who can answer.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The models in this process.
    Local,
    Upstream(Arc<Upstream>),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Upstream(upstream) => &upstream.name,
        }
    }
}

/// What made targets candidates.
#[derive(Debug, Clone, Default)]
pub(crate) enum Why {
    /// The Route of this name.
    Route(Arc<str>),
    /// They list the model.
    Listed,
    /// They list nothing, so they may have anything.
    #[default]
    CatchAll,
}

/// Targets that share requests by weight.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) why: Why,
    pub(crate) targets: Vec<(Target, u32)>,
    /// Requests so far. Of its own: a counter shared between groups would beat with the order of other groups' requests.
    turns: AtomicU64,
}

impl Group {
    pub(crate) fn new(why: Why, targets: Vec<(Target, u32)>) -> Self {
        Self {
            why,
            targets,
            turns: AtomicU64::new(0),
        }
    }

    pub(crate) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// The target whose turn it is among those that `accept` lets through: weighted, and exact over each cycle of as
    /// many turns as the weights sum to.
    pub(crate) fn choose(&self, turn: u64, accept: impl Fn(&Target) -> bool) -> Option<&Target> {
        let accepted = || {
            self.targets
                .iter()
                .filter(|(target, weight)| *weight > 0 && accept(target))
        };
        let cycle: u64 = accepted().map(|(_, weight)| u64::from(*weight)).sum();
        if cycle == 0 {
            return None;
        }
        let mut slot = spread(turn, cycle);
        for (target, weight) in accepted() {
            let weight = u64::from(*weight);
            if slot < weight {
                return Some(target);
            }
            slot -= weight;
        }
        None
    }
}

/// Visits every slot of a cycle once, neighbours far apart: with weights 9 and 1 the tenth does not wait for nine in a
/// row. The step is the one nearest above the golden section that shares no factor with the cycle.
fn spread(turn: u64, cycle: u64) -> u64 {
    let golden = u128::from(cycle) * 618 / 1000;
    let mut step = u64::try_from(golden).unwrap_or(1).max(1);
    while greatest_common_divisor(step, cycle) != 1 {
        step += 1;
    }
    let slot = u128::from(turn % cycle) * u128::from(step) % u128::from(cycle);
    u64::try_from(slot).unwrap_or(0)
}

fn greatest_common_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_visits_every_slot_once() {
        for cycle in [1, 2, 3, 10, 12, 97, 100, 1000] {
            let mut slots: Vec<u64> = (0..cycle).map(|turn| spread(turn, cycle)).collect();
            slots.sort_unstable();
            assert_eq!(slots, (0..cycle).collect::<Vec<_>>(), "{cycle}");
        }
    }
}
