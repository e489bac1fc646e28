//! Requests for MIG instances that come, are turned away when no device has the slices free, and leave.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::cluster::{Cluster, Node, Placement};
use crate::error::Error;
use crate::mig::{GEOMETRIES, Geometry};
use crate::policy::{self, Kapok, Policy};
use crate::request::{MILLI, Request};
use crate::rng::Rng;
use crate::scheduler::Scheduler;
use crate::state::Ask;
use crate::workload::Workload;

/// Which profiles come, of a hundred: the five that share a device and the whole of it, small ones first. The mixes of
/// "Online Fragmentation-Aware GPU Scheduler" (arXiv 2511.18906).
pub const MIXES: [(&str, [u32; 6]); 4] = [
    ("uniform", [1; 6]),
    ("small", [30, 25, 20, 10, 10, 5]),
    ("large", [5, 10, 10, 20, 25, 30]),
    ("bimodal", [30, 15, 5, 5, 15, 30]),
];

/// One run: devices of one model, requests at random moments, exponential lifetimes. Nobody waits.
#[derive(Debug, Clone)]
pub struct Division {
    cluster: Cluster,
    workload: Workload,
    requests: Vec<(Ask, u8)>,
    shares: Vec<u32>,
    load: f64,
    seed: u64,
}

/// Of the time after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Divided {
    pub arrived: u32,
    pub accepted: u32,
    /// Memory slices.
    pub slices_asked: u32,
    pub slices_accepted: u32,
}

/// In lifetimes.
const WARM: f64 = 2.0;
const END: f64 = 10.0;

const PER_NODE: u8 = 8;

impl Division {
    /// Of a mix of [`MIXES`], asking for `load` of all slices if none were turned away.
    pub fn new(devices: u16, mix: [u32; 6], load: f64, seed: u64) -> Result<Self, Error> {
        let geometry = &GEOMETRIES[2];
        let nodes = (0..devices.div_ceil(PER_NODE.into())).map(|at| {
            let left = devices - at * u16::from(PER_NODE);
            Node {
                name: format!("node-{at}"),
                cpu_milli: u32::MAX,
                memory_mib: u32::MAX,
                gpus: u8::try_from(left).map_or(PER_NODE, |left| left.min(PER_NODE)),
                model: format!("{}-{}GB", geometry.model, geometry.gib),
                ..Node::default()
            }
        });
        let cluster = Cluster::new(nodes.collect())?;
        let requests: Vec<(Request, u8)> = profiles(geometry);
        let workload = requests.iter().zip(mix);
        let workload = workload.flat_map(|((request, _), count)| (0..count).map(move |_| request));
        Ok(Self {
            workload: Workload::of(workload),
            requests: requests
                .iter()
                .map(|(request, size)| (cluster.ask(request), *size))
                .collect(),
            cluster,
            shares: mix.to_vec(),
            load,
            seed,
        })
    }

    /// `kapok` is told the load, beside the mix.
    pub fn policy(&self, name: &str) -> Result<Box<dyn Policy>, Error> {
        if name == "kapok" {
            let kapok = Kapok::new(&self.cluster, &self.workload);
            return Ok(Box::new(kapok.expecting(
                &self.cluster,
                &self.workload,
                self.load,
            )));
        }
        policy::by_name(name, &self.cluster, &self.workload)
    }

    pub fn run(&self, policy: Box<dyn Policy>) -> Divided {
        let mut scheduler = Scheduler::new(self.cluster.clone(), policy, self.seed);
        let mut rng = Rng::new(self.seed);
        let total: u32 = self.shares.iter().sum();
        let sizes = self.requests.iter().zip(&self.shares);
        let slices: u32 = sizes
            .map(|((_, size), share)| u32::from(*size) * share)
            .sum();
        let mean = f64::from(slices) / f64::from(total.max(1));
        let all = self.cluster.capacity_milli() as f64 / f64::from(MILLI) * 8.0;
        let between = mean / (self.load * all);
        let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut running: Vec<(Ask, Placement)> = Vec::new();
        let mut divided = Divided::default();
        let mut now = 0.0;
        while now < END {
            now += rng.exponential(between);
            let mut point = rng.below(total as usize);
            let mut kind = 0;
            for (at, share) in self.shares.iter().enumerate() {
                kind = at;
                let share = *share as usize;
                if point < share {
                    break;
                }
                point -= share;
            }
            // Positive floats are in the order of their bits.
            let end = (now + rng.exponential(1.0)).to_bits();
            while let Some(Reverse((at, index))) = ends.peek().copied()
                && at <= now.to_bits()
            {
                ends.pop();
                let (ask, placement) = &running[index];
                scheduler.release(ask, placement);
            }
            let (ask, size) = &self.requests[kind];
            let placed = scheduler.place(ask);
            if now > WARM {
                let accepted = u32::from(placed.is_some());
                divided.arrived += 1;
                divided.accepted += accepted;
                divided.slices_asked += u32::from(*size);
                divided.slices_accepted += accepted * u32::from(*size);
            }
            if let Some(placed) = placed {
                ends.push(Reverse((end, running.len())));
                running.push((*ask, placed.placement));
            }
        }
        divided
    }
}

/// One request for each profile without media extensions, and its memory slices.
fn profiles(geometry: &Geometry) -> Vec<(Request, u8)> {
    let shapes = geometry.profiles.iter().zip(geometry.family.shapes);
    let plain = shapes.filter(|(_, shape)| !shape.media);
    plain
        .map(|(profile, shape)| {
            let request = Request {
                gpus: 1,
                gpu_milli: MILLI,
                mig: Some((*profile).to_owned()),
                ..Request::default()
            };
            (request, shape.memory)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(mix: [u32; 6], load: f64, policy: &str) -> Divided {
        let division = Division::new(100, mix, load, 42).unwrap();
        division.run(division.policy(policy).unwrap())
    }

    /// The bench has more seeds and loads.
    #[test]
    fn kapok_accepts_more_instances_than_mfi_when_room_is_short() {
        for (name, mix) in MIXES.iter().take(3) {
            let [mfi, kapok] = ["mfi", "kapok"].map(|policy| accepted(*mix, 2.0, policy));
            assert_eq!(mfi.arrived, kapok.arrived);
            let gain = f64::from(kapok.accepted) / f64::from(mfi.accepted);
            assert!(gain > 1.025, "{name}: {gain:.4}");
        }
    }

    /// First fit is what drivers do today.
    #[test]
    fn mfi_accepts_more_than_first_fit_where_most_could_be_placed() {
        let [first, mfi] = ["bestfit", "mfi"].map(|policy| accepted(MIXES[2].1, 1.0, policy));
        assert!(mfi.accepted > first.accepted, "{mfi:?} {first:?}");
    }
}
