use std::collections::HashMap;

use super::mfi::Dividing;
use super::{Policy, Score};
use crate::cluster::{Cluster, Power};
use crate::filling::{Filling, SEQUENCES};
use crate::hash::Fast;
use crate::state::{Ask, Slot, State};
use crate::workload::Workload;

/// Ours: the place that adds least to what nodes are expected to be left with when they are filled at random, and that
/// takes least from requests for several GPUs of one node, which the filling forgives because smaller ones take their
/// place.
///
/// Measured on the inflation test beside FGD, mean over eight lists: fragmentation alone with multiplicity +0.48 points
/// (`MF + 4 F`), filling alone +0.95 but many requests for eight GPUs refused before the cluster is full, both +0.94 and
/// few refused.
#[derive(Debug)]
pub struct Kapok {
    plan: Plan,
    /// Worth of states met. Emptied when full, and when the plan changes.
    known: HashMap<State, i64, Fast>,
    dividing: Dividing,
    power: Option<Watts>,
    /// Present when requests are learned from arrivals alone.
    learning: Option<Learning>,
}

/// About 20 MiB.
const KNOWN_MAX: usize = 1 << 18;

/// A tenth of a millisecond; 64 allocate no more.
const BUDGET: usize = 16;

/// What a possible request for several GPUs counts beside what fillings leave. Once, as its expectation says, leaves fewer
/// of them room while the cluster fills: 87.3 % of the GPUs in use at 90 % of demand, 87.6 with twice, and the same at the
/// end (mean over eight lists).
const SEVERAL: i64 = 2;

/// The same where requests that find no room wait for it. One that is refused is lost once, and others take its place; one
/// that waits for a whole node may wait for months, until those have gone that stay longest on one of them. Mean waiting of
/// requests for eight GPUs at 95 % of the load, worst of three seeds: 78,788 s with 2, 300 s with 16, 0 s with 64, 351 s with 128,
/// 1,196 s with 256 (FGD 35,502 s).
const SEVERAL_WAITING: i64 = 64;

/// Types that make up less than a twentieth of all requests together are left out of the sequences, as FGD does.
const TYPICAL: f64 = 0.95;

/// Of MIG slices, where nobody said: room is short, and may not be.
const LOADS: [f64; 2] = [1.25, 0.9];

/// Scores count thousandths of a GPU in so many parts.
const PARTS: i64 = 64;

/// What is known of requests to come.
#[derive(Debug, Default)]
struct Plan {
    filling: Filling,
    /// Requests for several GPUs, and how many of `total` they are.
    several: Vec<(Ask, i64)>,
    total: i64,
    /// What a possible request for several GPUs counts.
    weight: i64,
}

impl Plan {
    /// `typical` for the filling, `all` for what must not be forgotten because it is rare.
    fn new(typical: &[(Ask, u32)], all: impl Iterator<Item = (Ask, u32)>) -> Self {
        let mut total = 0;
        let mut several = Vec::new();
        for (ask, count) in all {
            total += i64::from(count);
            if ask.gpus > 1 {
                several.push((ask, i64::from(count)));
            }
        }
        Self {
            filling: Filling::new(typical),
            several,
            total,
            weight: SEVERAL,
        }
    }

    /// Expected loss in thousandths of a GPU, times [`PARTS`].
    fn loss(&self, state: &State) -> i64 {
        let left = i64::from(self.filling.left(state)) * PARTS / i64::from(SEQUENCES);
        let whole = i64::try_from(state.whole()).unwrap_or(0);
        let possible: i64 = self
            .several
            .iter()
            .filter(|(ask, _)| i64::from(ask.gpus) <= whole && ask.kinds.contains(state.kind))
            .map(|(ask, count)| {
                let by_cpu = state.cpu_milli.checked_div(ask.cpu_milli);
                let by_memory = state.memory_mib.checked_div(ask.memory_mib);
                let fit = (whole / i64::from(ask.gpus))
                    .min(by_cpu.map_or(i64::MAX, i64::from))
                    .min(by_memory.map_or(i64::MAX, i64::from));
                count * fit * i64::from(ask.total_milli())
            })
            .sum();
        left - possible * PARTS * self.weight / self.total.max(1)
    }
}

impl Kapok {
    /// Knows which requests come, as FGD does.
    pub fn new(cluster: &Cluster, workload: &Workload) -> Self {
        let typical: Vec<_> = workload
            .typical(TYPICAL)
            .iter()
            .map(|(request, count)| (cluster.ask(request), *count))
            .collect();
        let all = workload.types();
        let all = all.map(|(request, count)| (cluster.ask(request), count));
        let dividing = Dividing::new(cluster, workload, &LOADS);
        Self {
            dividing,
            ..Self::with(Plan::new(&typical, all), None)
        }
    }

    /// So many thousandths of a GPU may be lost for each kilowatt that is not drawn; 0 asks for no watt.
    #[must_use]
    pub fn saving(mut self, cluster: &Cluster, milli_kw: u32) -> Self {
        self.power = (milli_kw > 0).then(|| Watts {
            kinds: cluster.kinds().iter().map(|kind| kind.power).collect(),
            milli_kw: milli_kw.into(),
        });
        self
    }

    /// For requests that wait where they find no room.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.plan.weight = SEVERAL_WAITING;
        self
    }

    /// MIG instances that are asked for at a time, as a share of all slices: above 1 some are turned away.
    #[must_use]
    pub fn expecting(mut self, cluster: &Cluster, workload: &Workload, load: f64) -> Self {
        self.dividing = Dividing::new(cluster, workload, &[load]);
        self
    }

    /// Knows nothing before requests arrive.
    pub fn online() -> Self {
        Self::with(Plan::default(), Some(Learning::default()))
    }

    fn with(plan: Plan, learning: Option<Learning>) -> Self {
        Self {
            plan,
            known: HashMap::default(),
            dividing: Dividing::default(),
            power: None,
            learning,
        }
    }

    fn loss(&mut self, state: &State) -> i64 {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let key = state.canonical();
        let plan = &self.plan;
        *self.known.entry(key).or_insert_with(|| plan.loss(&key))
    }
}

impl Policy for Kapok {
    fn name(&self) -> &'static str {
        match self.learning {
            None => "kapok",
            Some(_) => "kapok-online",
        }
    }

    fn budget(&self) -> usize {
        BUDGET
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        let before = self.loss(state);
        let mut worth = |after: &State| {
            let mut gain = before - self.loss(after);
            if let Some(power) = &self.power {
                gain -= power.worth(state, state.whole() - after.whole());
            }
            i32::try_from(gain).unwrap_or(if gain > 0 { i32::MAX } else { -i32::MAX })
        };
        if !ask.shares() {
            return Score {
                value: worth(&ask.on_fullest(state)),
                gpu: 0,
            };
        }
        let mut best: Option<Score> = None;
        for gpu in 0..state.gpus {
            let at = usize::from(gpu);
            // Equals stand side by side.
            let again = at > 0 && state.free[at] == state.free[at - 1];
            if state.free[at] < ask.milli || again {
                continue;
            }
            let value = worth(&ask.on_gpu(state, at));
            if best.is_none_or(|best| value > best.value) {
                best = Some(Score { value, gpu });
            }
        }
        best.unwrap_or(Score { value: 0, gpu: 0 })
    }

    fn divide(&mut self, state: &State, ask: &Ask) -> Option<(i32, Slot)> {
        self.dividing.best(state, ask)
    }

    fn learn(&mut self, ask: &Ask) -> bool {
        let Some(learning) = &mut self.learning else {
            return false;
        };
        let Some(plan) = learning.arrived(ask) else {
            return false;
        };
        self.plan = plan;
        self.known.clear();
        true
    }
}

/// Power awareness, as PWR has it (arXiv 2412.17484): what a place adds to the power drawn counts beside what it is worth.
#[derive(Debug)]
struct Watts {
    kinds: Vec<Power>,
    milli_kw: i64,
}

impl Watts {
    /// Of `fresh` GPUs more that are in use, and of the node, if none was: in the parts that scores count.
    fn worth(&self, state: &State, fresh: usize) -> i64 {
        let Some(power) = self.kinds.get(usize::from(state.kind)) else {
            return 0;
        };
        let asleep = state.whole() == usize::from(state.gpus);
        let fresh = i64::try_from(fresh).unwrap_or(0);
        let watts = fresh * i64::from(power.gpu_w) + i64::from(asleep) * i64::from(power.idle_w);
        watts * self.milli_kw * PARTS / 1_000
    }
}

/// Counts of what arrived; older arrivals count less.
#[derive(Debug, Default)]
struct Learning {
    counts: HashMap<Ask, u32, Fast>,
    arrived: u32,
    /// When the next plan is due, in arrivals.
    due: u32,
}

/// Arrivals before the first plan, and at most between two: each costs all scores.
const FIRST: u32 = 32;
const BETWEEN_MAX: u32 = 4_096;

/// Types counted. When there are more, those that came once are forgotten, then all counts are halved.
const TYPES_MAX: usize = 4_096;

/// Each arrival counts this much, so that halving keeps rare ones.
const WEIGHT: u32 = 16;

impl Learning {
    /// A new plan where one is due: when arrivals have doubled, then at even distances.
    fn arrived(&mut self, ask: &Ask) -> Option<Plan> {
        *self.counts.entry(*ask).or_default() += WEIGHT;
        self.arrived += 1;
        if self.counts.len() > TYPES_MAX {
            self.halve();
        }
        if self.arrived < self.due.max(FIRST) {
            return None;
        }
        let between = self.arrived.min(BETWEEN_MAX);
        self.due = self.arrived + between;
        let mut types: Vec<(Ask, u32)> = self
            .counts
            .iter()
            .map(|(ask, count)| (*ask, *count))
            .collect();
        // A table of hashes has no order of its own.
        types.sort_by_key(|(ask, count)| {
            (
                u32::MAX - count,
                ask.cpu_milli,
                ask.memory_mib,
                ask.milli,
                ask.gpus,
                ask.kinds,
            )
        });
        let total: u32 = types.iter().map(|(_, count)| count).sum();
        let mut sum = 0;
        let enough = f64::from(total) * TYPICAL;
        let typical = types.iter().take_while(|(_, count)| {
            let wanted = f64::from(sum) < enough;
            sum += count;
            wanted
        });
        let typical: Vec<_> = typical.copied().collect();
        let plan = Plan::new(&typical, types.into_iter());
        if between == BETWEEN_MAX {
            self.halve();
        }
        Some(plan)
    }

    fn halve(&mut self) {
        self.counts.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
    }
}
