//! How much of what is free is of no use to the next request: the measure of "Beware of Fragmentation" (USENIX ATC'23).

use crate::cluster::Cluster;
use crate::state::{Ask, State};
use crate::workload::Workload;

/// The share of requests that typical ones make up; what is rarer is left out (the artifact's setting).
const TYPICAL: f64 = 0.95;

/// The typical requests, and how likely the next one is of each type.
#[derive(Debug, Clone)]
pub struct Fragmentation {
    typical: Vec<(Ask, f64)>,
}

impl Fragmentation {
    pub fn new(cluster: &Cluster, workload: &Workload) -> Self {
        let types = workload.typical(TYPICAL);
        // In the artifact's order of operations, for scores that are cut off depend on the last bit.
        let total: u32 = workload.types().map(|(_, count)| count).sum();
        let typical: u32 = types.iter().map(|(_, count)| count).sum();
        let share = f64::from(typical) / f64::from(total);
        let weight = |count: u32| f64::from(count) / f64::from(total) / share;
        let typical = types
            .iter()
            .map(|(request, count)| (cluster.ask(request), weight(*count)))
            .collect();
        Self { typical }
    }

    /// Thousandths of GPUs on this node that the next request is not expected to be able to use.
    pub fn amount(&self, state: &State) -> f64 {
        // One sum a cause, added up in the artifact's order: a cut-off score may differ otherwise.
        let mut causes = [0.0; 7];
        let total = state.free_milli();
        for (ask, weight) in &self.typical {
            let cause = cause(ask, state);
            if cause == FITS {
                let of_no_use: u32 = state
                    .free()
                    .iter()
                    .filter(|free| **free < ask.milli)
                    .copied()
                    .map(u32::from)
                    .sum();
                causes[LACKS_GPU] += weight * f64::from(of_no_use);
            } else {
                causes[cause] += weight * f64::from(total);
            }
        }
        causes.iter().sum()
    }
}

const LACKS_BOTH: usize = 0;
const LACKS_GPU: usize = 1;
const FITS: usize = 2;
const LACKS_CPU: usize = 3;
const NO_GPU_WANTED: usize = 4;
const NO_GPU_WANTED_LACKS_CPU: usize = 5;
const WRONG_MODEL: usize = 6;

/// Memory is not looked at.
fn cause(ask: &Ask, state: &State) -> usize {
    let cpu = state.cpu_milli >= ask.cpu_milli;
    if ask.milli == 0 {
        return if cpu {
            NO_GPU_WANTED
        } else {
            NO_GPU_WANTED_LACKS_CPU
        };
    }
    if !ask.kinds.contains(state.kind) {
        return WRONG_MODEL;
    }
    match (cpu, ask.sufficient(state) >= usize::from(ask.gpus)) {
        (true, true) => FITS,
        (false, true) => LACKS_CPU,
        (true, false) => LACKS_GPU,
        (false, false) => LACKS_BOTH,
    }
}
