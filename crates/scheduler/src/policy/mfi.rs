use super::{BestFit, Policy, Score};
use crate::cluster::Cluster;
use crate::mig::GEOMETRIES;
use crate::mig::plan::{Demand, Plan};
use crate::state::{Ask, Slot, State};
use crate::workload::Workload;

/// Minimum fragmentation increment (arXiv 2511.18906): a MIG instance goes where it blocks fewest starts of others. What
/// asks for no instance goes where least is left.
#[derive(Debug, Default)]
pub struct Mfi(Dividing);

impl Policy for Mfi {
    fn name(&self) -> &'static str {
        "mfi"
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        BestFit.score(state, ask)
    }

    fn divide(&mut self, state: &State, ask: &Ask) -> Option<(i32, Slot)> {
        self.0.best(state, ask)
    }
}

/// A plan for each family of devices, made when the first instance is asked for.
#[derive(Debug, Default)]
pub(super) struct Dividing {
    /// By family; MFI where nothing is known of what comes.
    demand: [Option<Demand>; 2],
    plans: [Option<Plan>; 2],
}

impl Dividing {
    /// What of the workload asks for instances, or for the whole of a GPU that could be divided.
    pub(super) fn new(cluster: &Cluster, workload: &Workload, loads: &[f64]) -> Self {
        let mut demand = [None, None];
        if workload.types().any(|(request, _)| request.mig.is_some()) {
            for (request, count) in workload.types() {
                let ask = cluster.ask(request);
                let mut states = cluster
                    .states()
                    .iter()
                    .filter(|state| ask.kinds.contains(state.kind));
                let Some(geometry) = states.find_map(State::geometry) else {
                    continue;
                };
                let shape = match &request.mig {
                    Some(profile) => geometry.shape(profile).map(usize::from),
                    None if request.gpus > 0 && !request.shares() => {
                        Some(geometry.profiles.len() - 1)
                    }
                    None => None,
                };
                let Some(shape) = shape else { continue };
                let at = usize::from(!std::ptr::eq(geometry.family, GEOMETRIES[0].family));
                let demand = demand[at].get_or_insert_with(|| Demand {
                    shares: vec![0.0; geometry.profiles.len()],
                    loads: loads.to_vec(),
                });
                demand.shares[shape] += f64::from(count) * f64::from(request.gpus);
            }
        }
        Self {
            demand,
            plans: [None, None],
        }
    }

    pub(super) fn best(&mut self, state: &State, ask: &Ask) -> Option<(i32, Slot)> {
        let geometry = state.geometry()?;
        let at = usize::from(!std::ptr::eq(geometry.family, GEOMETRIES[0].family));
        let plan = self.plans[at].get_or_insert_with(|| match &self.demand[at] {
            Some(demand) => Plan::new(geometry.automaton(), demand),
            None => Plan::mfi(geometry.automaton()),
        });
        let mut best: Option<(i32, Slot)> = None;
        for slot in ask.slots(state) {
            let value = plan.worth(slot.after) - plan.worth(slot.before);
            if best.is_none_or(|(most, _)| value > most) {
                best = Some((value, slot));
            }
        }
        best
    }
}
