//! The best node for each type of request, kept up to date by what changed since that type was last asked for.
//!
//! Nodes in the same state are one class and are scored once. Each type has the scores of all nodes as the leaves of a
//! tree of maxima, and reads in a log which nodes changed since it last looked.

use std::collections::HashMap;

use crate::hash::Fast;
use crate::policy::{self, Policy, View};
use crate::state::{Ask, State};

/// Of a node that cannot take the request.
pub(crate) const NEVER: i32 = i32::MIN;
const UNKNOWN: i32 = i32::MIN + 1;
/// Of a node that can, and has not been scored yet: taken when no other can.
pub(crate) const UNSCORED: i32 = i32::MIN + 2;

/// Children of one inner node: two cache lines.
const FAN: usize = 32;

/// Classes remembered; beyond, all are forgotten but those that nodes are in.
const CLASSES_MAX: usize = 1 << 18;

/// Types of requests with a tree; beyond, the one that was asked for longest ago goes.
const TABLES_MAX: usize = 1 << 10;

#[derive(Debug)]
pub(crate) struct Index {
    view: View,
    classes: HashMap<State, u32, Fast>,
    states: Vec<State>,
    /// The class of each node.
    of: Vec<u32>,
    log: Log,
    tables: Vec<Table>,
    by_ask: HashMap<Ask, usize, Fast>,
    clock: u64,
}

/// The last nodes that changed, as many as there are nodes: who is further behind starts afresh.
#[derive(Debug)]
struct Log {
    ring: Vec<u32>,
    /// Ever written.
    end: usize,
}

#[derive(Debug)]
struct Table {
    ask: Ask,
    /// Position in the log.
    seen: usize,
    used: u64,
    /// Score by class.
    memo: Vec<i32>,
    /// Nodes that are unscored, and some that no longer are.
    pending: Vec<u32>,
    /// Scores by node, then maxima of `FAN` each, up to one level of at most `FAN`.
    levels: Vec<Vec<i32>>,
}

impl Index {
    pub(crate) fn new(view: View, states: &[State]) -> Self {
        let mut index = Self {
            view,
            classes: HashMap::default(),
            states: Vec::new(),
            of: Vec::new(),
            log: Log {
                ring: vec![0; states.len().max(1)],
                // A new table has seen nothing, which is further behind than this reaches.
                end: states.len() + 1,
            },
            tables: Vec::new(),
            by_ask: HashMap::default(),
            clock: 0,
        };
        index.intern_all(states);
        index
    }

    /// A node's state as the policy sees it.
    pub(crate) fn state(&self, node: usize) -> &State {
        &self.states[self.of[node] as usize]
    }

    /// To be called after each change of a node.
    pub(crate) fn changed(&mut self, node: usize, states: &[State]) {
        if self.states.len() >= CLASSES_MAX.max(states.len() * 2) {
            self.intern_all(states);
            self.forget_scores();
        }
        self.of[node] = self.intern(&states[node]);
        let end = self.log.end;
        let at = end % self.log.ring.len();
        self.log.ring[at] = u32::try_from(node).unwrap_or(u32::MAX);
        self.log.end = end + 1;
    }

    /// The policy has changed its mind.
    pub(crate) fn forget_scores(&mut self) {
        self.tables.clear();
        self.by_ask.clear();
    }

    /// The first of the best nodes and its score.
    pub(crate) fn best(&mut self, ask: &Ask, policy: &mut dyn Policy) -> Option<(usize, i32)> {
        let table = self.refresh(ask, policy);
        let levels = &self.tables[table].levels;
        let top = levels.last()?;
        let best = top.iter().copied().max().filter(|best| *best != NEVER)?;
        let mut at = 0;
        for (level, values) in levels.iter().enumerate().rev() {
            let children = if level + 1 == levels.len() {
                0..values.len()
            } else {
                at * FAN..values.len().min((at + 1) * FAN)
            };
            at = children.start + values[children].iter().position(|value| *value == best)?;
        }
        Some((at, best))
    }

    /// The scores of all nodes, [`NEVER`] where the request does not fit.
    pub(crate) fn scores(&mut self, ask: &Ask, policy: &mut dyn Policy) -> &[i32] {
        let table = self.refresh(ask, policy);
        self.tables[table].levels.first().map_or(&[], Vec::as_slice)
    }

    fn refresh(&mut self, ask: &Ask, policy: &mut dyn Policy) -> usize {
        self.clock += 1;
        let index = self.table(ask);
        let table = &mut self.tables[index];
        table.used = self.clock;
        // Asked again with nothing changed, the answer is the same.
        if table.seen == self.log.end {
            return index;
        }
        let mut scorer = Scorer {
            states: &self.states,
            of: &self.of,
            budget: policy.budget(),
            policy,
        };
        if self.log.end - table.seen > self.of.len() {
            table.rebuild(&mut scorer);
        } else {
            let ring = &self.log.ring;
            for position in (table.seen..self.log.end).rev() {
                table.update(ring[position % ring.len()], &mut scorer);
            }
            table.catch_up(&mut scorer);
        }
        table.seen = self.log.end;
        index
    }

    fn table(&mut self, ask: &Ask) -> usize {
        if let Some(known) = self.by_ask.get(ask) {
            return *known;
        }
        let levels = levels(self.of.len());
        let empty = Table {
            ask: *ask,
            seen: 0,
            used: self.clock,
            memo: Vec::new(),
            pending: Vec::new(),
            levels,
        };
        let index = if self.tables.len() < TABLES_MAX {
            self.tables.push(empty);
            self.tables.len() - 1
        } else {
            let oldest = (0..self.tables.len()).min_by_key(|at| self.tables[*at].used);
            let oldest = oldest.unwrap_or(0);
            self.by_ask.remove(&self.tables[oldest].ask);
            self.tables[oldest] = empty;
            oldest
        };
        self.by_ask.insert(*ask, index);
        index
    }

    fn intern_all(&mut self, states: &[State]) {
        self.classes.clear();
        self.states.clear();
        self.of = states.iter().map(|state| self.intern(state)).collect();
    }

    fn intern(&mut self, state: &State) -> u32 {
        let seen = self.view.of(state);
        let next = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        let class = *self.classes.entry(seen).or_insert(next);
        if class == next {
            self.states.push(seen);
        }
        class
    }
}

struct Scorer<'a> {
    states: &'a [State],
    of: &'a [u32],
    /// Scores that may still be asked for.
    budget: usize,
    policy: &'a mut dyn Policy,
}

impl Table {
    fn score(&mut self, node: usize, scorer: &mut Scorer<'_>) -> i32 {
        let class = scorer.of[node] as usize;
        if class >= self.memo.len() {
            self.memo.resize(scorer.states.len(), UNKNOWN);
        }
        if self.memo[class] == UNKNOWN {
            let state = &scorer.states[class];
            self.memo[class] = if !self.ask.fits(state) {
                NEVER
            } else if scorer.budget == 0 {
                return UNSCORED;
            } else {
                scorer.budget -= 1;
                policy::score(&mut *scorer.policy, state, &self.ask).max(UNSCORED + 1)
            };
        }
        self.memo[class]
    }

    fn update(&mut self, node: u32, scorer: &mut Scorer<'_>) {
        let at = node as usize;
        let value = self.score(at, scorer);
        if value == UNSCORED && self.levels[0][at] != UNSCORED {
            self.pending.push(node);
        }
        self.set(at, value);
    }

    /// Spends what is left of the budget on nodes that were passed over before.
    fn catch_up(&mut self, scorer: &mut Scorer<'_>) {
        if self.pending.len() > 2 * scorer.of.len() {
            let nodes = (0_u32..).zip(&self.levels[0]);
            let unscored = nodes.filter(|(_, score)| **score == UNSCORED);
            self.pending = unscored.map(|(node, _)| node).collect();
        }
        while scorer.budget > 0
            && let Some(node) = self.pending.pop()
        {
            let value = self.score(node as usize, scorer);
            self.set(node as usize, value);
        }
    }

    fn rebuild(&mut self, scorer: &mut Scorer<'_>) {
        self.pending.clear();
        for node in (0_u32..).take(scorer.of.len()) {
            let value = self.score(node as usize, scorer);
            self.levels[0][node as usize] = value;
            if value == UNSCORED {
                self.pending.push(node);
            }
        }
        for level in 1..self.levels.len() {
            let (below, above) = self.levels.split_at_mut(level);
            for (maximum, children) in above[0].iter_mut().zip(below[level - 1].chunks(FAN)) {
                *maximum = greatest(children);
            }
        }
    }

    fn set(&mut self, node: usize, value: i32) {
        let mut at = node;
        let mut value = value;
        for level in 0..self.levels.len() {
            let old = std::mem::replace(&mut self.levels[level][at], value);
            if old == value || level + 1 == self.levels.len() {
                return;
            }
            let parent = at / FAN;
            let current = self.levels[level + 1][parent];
            if value < current && old < current {
                return;
            }
            value = if value >= current {
                value
            } else {
                let children = &self.levels[level];
                greatest(&children[parent * FAN..children.len().min((parent + 1) * FAN)])
            };
            at = parent;
        }
    }
}

fn greatest(values: &[i32]) -> i32 {
    values.iter().copied().fold(NEVER, i32::max)
}

fn levels(nodes: usize) -> Vec<Vec<i32>> {
    let mut levels = vec![vec![NEVER; nodes]];
    let mut length = nodes;
    while length > FAN {
        length = length.div_ceil(FAN);
        levels.push(vec![NEVER; length]);
    }
    levels
}

#[cfg(test)]
mod tests;
