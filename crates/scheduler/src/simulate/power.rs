//! What a cluster draws as it fills.

use super::Inflation;
use crate::cluster::{Node, Power};
use crate::policy::Policy;
use crate::scheduler::Scheduler;

#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// When so many percent of the GPUs as were asked about are allocated; fewer where that was not reached.
    pub watts: Vec<u64>,
    /// In the end.
    pub allocated_pct: f64,
}

/// Nodes with the watts of their GPUs and processors, as PWR's authors (arXiv 2412.17484) list them: when idle, and beyond
/// that of each GPU in use.
pub fn powered(nodes: Vec<Node>) -> Vec<Node> {
    let watts = |model: &str| match model {
        "T4" => (10, 60),
        "P100" => (25, 225),
        "V100M16" | "V100M32" => (30, 270),
        "G3" => (50, 350),
        _ => (30, 120),
    };
    let nodes = nodes.into_iter();
    nodes
        .map(|node| {
            let (idle, gpu_w) = watts(&node.model);
            // Two sockets of 20 W.
            let idle_w = 40 + idle * u32::from(node.gpus);
            Node {
                power: Power { idle_w, gpu_w },
                ..node
            }
        })
        .collect()
}

impl Inflation {
    /// At `marks` percent of the GPUs, in rising order: compared at the same allocation, nothing is saved by running less.
    pub fn drawn(&self, policy: Box<dyn Policy>, marks: &[u64]) -> Drawn {
        let mut scheduler = Scheduler::new(self.cluster.clone(), policy, self.seed);
        let mut watts = Vec::new();
        let capacity = self.cluster.capacity_milli();
        for request in &self.requests {
            let ask = scheduler.ask(request);
            scheduler.place(&ask);
            let cluster = scheduler.cluster();
            let next = marks.get(watts.len());
            if next.is_some_and(|mark| cluster.allocated_milli() * 100 >= mark * capacity) {
                watts.push(cluster.watts());
            }
        }
        let allocated = scheduler.cluster().allocated_milli();
        Drawn {
            watts,
            allocated_pct: 100.0 * allocated as f64 / capacity.max(1) as f64,
        }
    }
}
