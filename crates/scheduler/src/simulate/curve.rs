//! Allocation and fragmentation as demand grows, in the artifact's way of counting.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::fragmentation::Fragmentation;

/// Percent of the cluster's GPUs asked for, where the artifact's results are given.
pub const MARKS: [u32; 9] = [30, 60, 80, 90, 95, 100, 110, 120, 130];

/// Means over all arrivals at which demand, rounded, was so many percent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Of all GPUs, in use.
    pub allocated_pct: f64,
    /// Of what is free, of no use to the next request.
    pub frag_ratio_pct: f64,
    /// Of all GPUs, free and of no use to the next request.
    pub frag_pct: f64,
}

/// By percent of demand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve(pub BTreeMap<u32, Point>);

impl Curve {
    /// At a percentage of demand, or the nearest one below that occurred.
    pub fn at(&self, percent: u32) -> Point {
        let below = self.0.range(..=percent).next_back();
        below.map_or_else(Point::default, |(_, point)| *point)
    }
}

#[derive(Debug)]
pub(super) struct Recorder {
    fragmentation: Fragmentation,
    /// Of each node, and of all.
    amounts: Vec<f64>,
    amount: f64,
    asked_milli: u64,
    sums: BTreeMap<u32, (Point, u32)>,
}

impl Recorder {
    pub(super) fn new(fragmentation: Fragmentation, cluster: &Cluster) -> Self {
        let states = cluster.states().iter();
        let amounts: Vec<f64> = states.map(|state| fragmentation.amount(state)).collect();
        Self {
            fragmentation,
            amount: amounts.iter().sum(),
            amounts,
            asked_milli: 0,
            sums: BTreeMap::new(),
        }
    }

    /// After one request, which changed this node or none.
    pub(super) fn record(&mut self, asked: u32, node: Option<usize>, cluster: &Cluster) {
        self.asked_milli += u64::from(asked);
        if let Some(node) = node {
            let amount = self.fragmentation.amount(&cluster.states()[node]);
            self.amount += amount - self.amounts[node];
            self.amounts[node] = amount;
        }
        let capacity = cluster.capacity_milli() as f64;
        let free = capacity - cluster.allocated_milli() as f64;
        let ratio = if free > 0.0 {
            100.0 * self.amount / free
        } else {
            0.0
        };
        let allocated = 100.0 * cluster.allocated_milli() as f64 / capacity;
        let (sum, count) = self
            .sums
            .entry(percent(100.0 * self.asked_milli as f64 / capacity))
            .or_default();
        sum.allocated_pct += (allocated * 100.0).round_ties_even() / 100.0;
        sum.frag_ratio_pct += (ratio * 100.0).round_ties_even() / 100.0;
        sum.frag_pct += 100.0 * self.amount / capacity;
        *count += 1;
    }

    pub(super) fn finish(self) -> Curve {
        let means = self.sums.into_iter().map(|(percent, (sum, count))| {
            let count = f64::from(count);
            let mean = Point {
                allocated_pct: sum.allocated_pct / count,
                frag_ratio_pct: sum.frag_ratio_pct / count,
                frag_pct: sum.frag_pct / count,
            };
            (percent, mean)
        });
        Curve(means.collect())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "percentages of a demand that was bounded"
)]
fn percent(value: f64) -> u32 {
    value.round_ties_even() as u32
}
