//! A cluster's life in a second: arrivals, a policy, and what came of them.
//!
//! Reading order: this file (requests come until the cluster is more than full), [`arrivals`] (which ones), [`curve`]
//! (what is measured), [`churn`] (requests also leave), [`jobs`] (a queue decides who is next),
//! [`division`] (MIG instances that come and leave), [`power`] (watts), [`foretold`] (explanations held against what
//! happens), [`report`] (results as CSV and as a page).

mod arrivals;
mod churn;
mod curve;
mod division;
mod foretold;
pub mod jobs;
mod power;
pub mod report;

use crate::cluster::{Cluster, Node};
use crate::error::Error;
use crate::fragmentation::Fragmentation;
use crate::policy::{self, Policy};
use crate::request::Request;
use crate::rng::Rng;
use crate::scheduler::Scheduler;
use crate::trace::Pod;
use crate::workload::Workload;

pub use arrivals::inflate;
pub use churn::{Churn, Stay, jobs as churn_jobs};
pub use curve::{Curve, MARKS, Point};
pub use division::{Divided, Division, MIXES};
pub use foretold::{Foretelling, Foretold};
pub use power::{Drawn, powered};

/// Demand at the end, as a share of the cluster's GPUs.
pub const DEMAND: f64 = 1.3;

/// The inflation test: requests come until they ask for [`DEMAND`] times the cluster; none leaves, none is tried twice.
/// The same for every policy: order of arrival and order of nodes depend on the seed alone.
#[derive(Debug, Clone)]
pub struct Inflation {
    pub cluster: Cluster,
    pub requests: Vec<Request>,
    pub workload: Workload,
    seed: u64,
}

/// Of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Arrives,
    Decided,
}

/// What a run ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub curve: Curve,
    pub arrived: u32,
    pub placed: u32,
}

impl Inflation {
    pub fn new(nodes: &[Node], pods: &[Pod], seed: u64) -> Result<Self, Error> {
        let mut rng = Rng::new(seed);
        let capacity: u64 = nodes.iter().map(|node| u64::from(node.gpus) * 1_000).sum();
        let requests = inflate(pods, capacity, DEMAND, &mut rng);
        let mut nodes = nodes.to_vec();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        rng.shuffle(&mut nodes);
        Ok(Self {
            cluster: Cluster::new(nodes)?,
            requests,
            workload: Workload::of(pods.iter().map(|pod| &pod.request)),
            seed,
        })
    }

    pub fn policy(&self, name: &str) -> Result<Box<dyn Policy>, Error> {
        policy::by_name(name, &self.cluster, &self.workload)
    }

    pub fn run(&self, policy: Box<dyn Policy>) -> Outcome {
        self.watch(policy, &mut |_| {})
    }

    /// The same, and says before and after each decision: this room has no clock.
    pub fn watch(&self, policy: Box<dyn Policy>, moment: &mut dyn FnMut(Moment)) -> Outcome {
        let fragmentation = Fragmentation::new(&self.cluster, &self.workload);
        let mut curve = curve::Recorder::new(fragmentation, &self.cluster);
        let mut scheduler = Scheduler::new(self.cluster.clone(), policy, self.seed);
        let (mut arrived, mut placed) = (0, 0);
        for request in &self.requests {
            moment(Moment::Arrives);
            let ask = scheduler.ask(request);
            scheduler.arrive(&ask);
            let outcome = scheduler.place(&ask);
            moment(Moment::Decided);
            arrived += 1;
            placed += u32::from(outcome.is_some());
            let node = outcome.map(|placed| placed.placement.node);
            curve.record(ask.total_milli(), node, scheduler.cluster());
        }
        Outcome {
            curve: curve.finish(),
            arrived,
            placed,
        }
    }
}

#[cfg(test)]
mod tests;
