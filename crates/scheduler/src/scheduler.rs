//! Where a request goes.

use std::cmp::Reverse;

use crate::cluster::{Cluster, Hold, Placement, Spot};
use crate::decision::{Candidate, Decision};
use crate::error::Error;
use crate::index::{Index, NEVER, UNSCORED};
use crate::policy::{self, Choice, Policy};
use crate::request::Request;
use crate::rng::Rng;
use crate::state::Ask;

/// A cluster, a policy, and what makes them quick. Of nodes that are equally good the first is taken.
#[derive(Debug)]
pub struct Scheduler {
    cluster: Cluster,
    policy: Box<dyn Policy>,
    index: Index,
    rng: Rng,
}

/// Where a request went, and what that place was worth to the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub placement: Placement,
    pub score: i32,
}

impl Scheduler {
    pub fn new(cluster: Cluster, policy: Box<dyn Policy>, seed: u64) -> Self {
        let index = Index::new(policy.view(), cluster.states());
        Self {
            cluster,
            policy,
            index,
            rng: Rng::new(seed),
        }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    pub fn ask(&self, request: &Request) -> Ask {
        self.cluster.ask(request)
    }

    /// Tells the policy that such a request came.
    pub fn arrive(&mut self, ask: &Ask) {
        if self.policy.learn(ask) {
            self.index.forget_scores();
        }
    }

    /// Puts the request on the best node that can take it; none can when this is `None`.
    pub fn place(&mut self, ask: &Ask) -> Option<Placed> {
        let (node, score) = match self.policy.choice() {
            Choice::Best => self.index.best(ask, &mut *self.policy)?,
            Choice::Any => (self.any(ask)?, 0),
        };
        let spot = self.spot(ask, node);
        let score = self.scored(ask, node, score);
        // Scores are given to nodes that the request fits, and the GPU is one with room.
        let placement = self.cluster.place(ask, node, spot).ok()?;
        self.index.changed(node, self.cluster.states());
        Some(Placed { placement, score })
    }

    /// What [`place`](Self::place) would do now and why, with the best `count` nodes. A policy that draws has no best
    /// node and chooses nothing here. Looks at every node.
    pub fn explain(&mut self, ask: &Ask, count: usize) -> Decision {
        let mut decision = Decision::new(self.policy.name());
        let scores = self.index.scores(ask, &mut *self.policy).to_vec();
        let mut feasible = Vec::new();
        for (node, score) in scores.iter().enumerate() {
            match ask.obstacle(&self.cluster.states()[node]) {
                Some(obstacle) => decision.reject(obstacle, node, &self.cluster),
                None => feasible.push((node, *score)),
            }
        }
        decision.feasible = feasible.len();
        feasible.sort_by_key(|(node, score)| (Reverse(*score), *node));
        for (node, score) in feasible.into_iter().take(count.max(1)) {
            // A draw would change what is drawn next.
            let drawn = self.policy.choice() == Choice::Any;
            let spot = if drawn {
                Spot::default()
            } else {
                self.spot(ask, node)
            };
            let placement = self.cluster.would_place(ask, node, spot);
            decision
                .candidates
                .extend(placement.map(|placement| Candidate {
                    name: self.cluster.nodes()[node].name.clone(),
                    placement,
                    score,
                }));
        }
        if self.policy.choice() == Choice::Best {
            decision.chosen = decision.candidates.first().cloned();
        }
        decision.candidates.truncate(count);
        decision
    }

    /// Takes exactly this place, which was chosen before.
    pub fn occupy(&mut self, ask: &Ask, placement: &Placement) -> Result<(), Error> {
        self.cluster.occupy(ask, placement)?;
        self.index.changed(placement.node, self.cluster.states());
        Ok(())
    }

    pub(crate) fn hold(&mut self, hold: &mut Hold) {
        self.cluster.hold(hold);
        self.index.changed(hold.node, self.cluster.states());
    }

    pub(crate) fn unhold(&mut self, hold: &Hold) {
        self.cluster.unhold(hold);
        self.index.changed(hold.node, self.cluster.states());
    }

    pub fn release(&mut self, ask: &Ask, placement: &Placement) {
        self.cluster.release(ask, placement);
        self.index.changed(placement.node, self.cluster.states());
    }

    fn any(&mut self, ask: &Ask) -> Option<usize> {
        let scores = self.index.scores(ask, &mut *self.policy);
        let feasible = scores.iter().filter(|score| **score != NEVER).count();
        let nth = self.rng.below(feasible);
        let mut feasible = (0..scores.len()).filter(|node| scores[*node] != NEVER);
        feasible.nth(nth)
    }

    /// The score, also of a node that had none yet.
    fn scored(&mut self, ask: &Ask, node: usize, score: i32) -> i32 {
        match score {
            UNSCORED => policy::score(&mut *self.policy, self.index.state(node), ask),
            score => score,
        }
    }

    fn spot(&mut self, ask: &Ask, node: usize) -> Spot {
        if ask.divides() {
            return self.slot(ask, node);
        }
        let gpu = if ask.shares() { self.gpu(ask, node) } else { 0 };
        Spot {
            gpu: u8::try_from(gpu).unwrap_or(0),
            slice: 0,
        }
    }

    /// The policy may see GPUs in another order; those that are divided in the same way are alike.
    fn slot(&mut self, ask: &Ask, node: usize) -> Spot {
        let state = &self.cluster.states()[node];
        if self.policy.choice() == Choice::Any {
            let slots: Vec<_> = ask.slots(state).collect();
            let slot = slots.get(self.rng.below(slots.len()));
            return slot.map_or_else(Spot::default, |slot| Spot {
                gpu: slot.gpu,
                slice: slot.start,
            });
        }
        let seen = self.index.state(node);
        let Some((_, chosen)) = self.policy.divide(seen, ask) else {
            return Spot::default();
        };
        let mut same = ask.slots(state).filter(|slot| slot.before == chosen.before);
        Spot {
            gpu: same.next().map_or(0, |slot| slot.gpu),
            slice: chosen.start,
        }
    }

    /// The policy may see GPUs in another order; those with as much room are alike.
    fn gpu(&mut self, ask: &Ask, node: usize) -> usize {
        let free = self.cluster.states()[node].free();
        if self.policy.choice() == Choice::Any {
            let room: Vec<_> = (0..free.len())
                .filter(|gpu| free[*gpu] >= ask.milli)
                .collect();
            return room.get(self.rng.below(room.len())).copied().unwrap_or(0);
        }
        let seen = self.index.state(node);
        let chosen = usize::from(self.policy.score(seen, ask).gpu);
        let room = seen.free[chosen];
        free.iter().position(|free| *free == room).unwrap_or(0)
    }
}
