//! Why a request went where it went, or nowhere.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::{Cluster, Placement};
use crate::state::Obstacle;

/// What was chosen, from what, and why not elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub policy: &'static str,
    /// Nothing when no node can take the request.
    pub chosen: Option<Candidate>,
    /// The best feasible nodes, best first, the chosen one among them.
    pub candidates: Vec<Candidate>,
    /// Nodes that can take the request.
    pub feasible: usize,
    /// The first thing in the way on each node that cannot.
    pub rejected: BTreeMap<Obstacle, Rejected>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub placement: Placement,
    pub score: i32,
}

/// How many nodes, and some of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    pub nodes: usize,
    pub examples: Vec<String>,
}

/// Names given for one reason: a cluster has thousands.
const EXAMPLES_MAX: usize = 3;

impl Decision {
    pub(crate) fn new(policy: &'static str) -> Self {
        Self {
            policy,
            chosen: None,
            candidates: Vec::new(),
            feasible: 0,
            rejected: BTreeMap::new(),
        }
    }

    pub(crate) fn reject(&mut self, obstacle: Obstacle, node: usize, cluster: &Cluster) {
        let rejected = self.rejected.entry(obstacle).or_default();
        rejected.nodes += 1;
        if rejected.examples.len() < EXAMPLES_MAX {
            rejected.examples.push(cluster.nodes()[node].name.clone());
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kind => "another GPU model, region or label",
            Self::Cpu => "too little CPU free",
            Self::Memory => "too little memory free",
            Self::Instance => "no GPU with the slices of the MIG profile free",
            Self::Gpu => "no GPU with enough free, or too few",
        })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.chosen {
            Some(chosen) => write!(
                formatter,
                "{}: `{}`, score {}",
                self.policy, chosen.name, chosen.score
            )?,
            None => write!(formatter, "{}: no node can take it", self.policy)?,
        }
        write!(formatter, "; {} feasible", self.feasible)?;
        for (obstacle, rejected) in &self.rejected {
            write!(
                formatter,
                "; {} nodes: {obstacle} (`{}`)",
                rejected.nodes,
                rejected.examples.join("`, `")
            )?;
        }
        Ok(())
    }
}
