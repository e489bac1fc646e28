//! How good a place is: one trait, one file a policy.

mod best_fit;
mod dot_product;
mod fgd;
mod gpu_clustering;
mod gpu_packing;
mod kapok;
mod mfi;
mod random;

use std::fmt::Debug;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::state::{Ask, Slot, State};
use crate::workload::Workload;

pub use best_fit::BestFit;
pub use dot_product::DotProduct;
pub use fgd::Fgd;
pub use gpu_clustering::GpuClustering;
pub use gpu_packing::GpuPacking;
pub use kapok::Kapok;
pub use mfi::Mfi;
pub use random::Random;

/// A place's worth, and for a part of a GPU which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// Higher is better; the three lowest numbers are taken for it.
    pub value: i32,
    /// Index into [`State::free`].
    pub gpu: u8,
}

/// How one of several feasible nodes is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The highest score, and of equals the first node.
    Best,
    /// Any feasible node, all alike.
    Any,
}

/// How much of a state a policy looks at. What it does not look at makes no states differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What is free; which GPU is which and what runs do not matter.
    Free,
    /// Also which GPU is which.
    Ordered,
    /// Also what runs, but not which GPU is which.
    Tagged,
}

impl View {
    pub(crate) fn of(self, state: &State) -> State {
        match self {
            Self::Free => State {
                tags: 0,
                ..state.canonical()
            },
            Self::Ordered => State { tags: 0, ..*state },
            Self::Tagged => state.canonical(),
        }
    }
}

/// Scores depend on nothing but the state and the request, so that they can be remembered.
pub trait Policy: Debug + Send {
    fn name(&self) -> &'static str;

    fn view(&self) -> View {
        View::Free
    }

    fn choice(&self) -> Choice {
        Choice::Best
    }

    /// New states scored for one request at most. Those left out are scored with the next request of that type and are
    /// taken before only if nothing scored can take it: what is asked for often is always up to date, and what is rare
    /// does not wait until a thousand nodes are looked at for the first time.
    fn budget(&self) -> usize {
        usize::MAX
    }

    /// Asked only about states that the request fits.
    fn score(&mut self, state: &State, ask: &Ask) -> Score;

    /// The best place for a MIG instance and its worth; by default the first, as NVIDIA's driver for Kubernetes has it.
    /// Asked only about states that the request fits.
    fn divide(&mut self, state: &State, ask: &Ask) -> Option<(i32, Slot)> {
        Some((0, ask.slots(state).next()?))
    }

    /// A request has arrived; true when scores given before are no longer true.
    fn learn(&mut self, _ask: &Ask) -> bool {
        false
    }
}

/// A place's worth, whatever is asked for.
pub(crate) fn score(policy: &mut dyn Policy, state: &State, ask: &Ask) -> i32 {
    if ask.divides() {
        return policy.divide(state, ask).map_or(0, |(value, _)| value);
    }
    policy.score(state, ask).value
}

/// Names as users type them, and how the FGD artifact's results call them.
pub const NAMES: [(&str, &str); 9] = [
    ("random", "01-Random"),
    ("dotproduct", "02-DotProd"),
    ("gpuclustering", "03-GpuClustering"),
    ("gpupacking", "04-GpuPacking"),
    ("bestfit", "05-BestFit"),
    ("fgd", "06-FGD"),
    ("kapok", "07-kapok"),
    ("kapok-online", "08-kapok-online"),
    ("mfi", "09-MFI"),
];

/// A policy's name, without the knob of `kapok@300`.
pub fn known(name: &str) -> bool {
    parse(name).is_some()
}

/// And the thousandths of a GPU that it may lose for each kilowatt.
fn parse(name: &str) -> Option<(&'static str, u32)> {
    let (plain, saving) = match name.split_once('@') {
        Some(("kapok", saving)) => (
            "kapok",
            saving.parse().ok().filter(|milli| *milli <= SAVING_MAX)?,
        ),
        Some(_) => return None,
        None => (name, 0),
    };
    let (known, _) = NAMES.iter().find(|(known, _)| *known == plain)?;
    Some((known, saving))
}

/// A hundred GPUs for each kilowatt: nothing but watts decides.
const SAVING_MAX: u32 = 100_000;

/// `workload` is what a policy may know of requests before they come. `kapok@300` is `kapok` that may lose 300 thousandths
/// of a GPU for each kilowatt that is not drawn.
pub fn by_name(
    name: &str,
    cluster: &Cluster,
    workload: &Workload,
) -> Result<Box<dyn Policy>, Error> {
    let (plain, saving) = parse(name).unwrap_or(("", 0));
    Ok(match plain {
        "random" => Box::new(Random),
        "dotproduct" => Box::new(DotProduct),
        "gpuclustering" => Box::new(GpuClustering),
        "gpupacking" => Box::new(GpuPacking),
        "bestfit" => Box::new(BestFit),
        "fgd" => Box::new(Fgd::new(cluster, workload)),
        "mfi" => Box::new(Mfi::default()),
        "kapok" => Box::new(Kapok::new(cluster, workload).saving(cluster, saving)),
        "kapok-online" => Box::new(Kapok::online()),
        _ => {
            return Err(Error::UnknownPolicy {
                name: name.to_owned(),
                known: NAMES.map(|(name, _)| name).join(", "),
            });
        }
    })
}

/// The same for requests that wait where they find no room, and are not refused.
pub fn waiting(
    name: &str,
    cluster: &Cluster,
    workload: &Workload,
) -> Result<Box<dyn Policy>, Error> {
    match parse(name) {
        Some(("kapok", saving)) => {
            let kapok = Kapok::new(cluster, workload).saving(cluster, saving);
            Ok(Box::new(kapok.waiting()))
        }
        _ => by_name(name, cluster, workload),
    }
}

/// The fullest GPU with room, and of equals the first.
fn fullest(state: &State, ask: &Ask) -> u8 {
    let gpus = 0..state.gpus;
    gpus.filter(|gpu| state.free[usize::from(*gpu)] >= ask.milli)
        .min_by_key(|gpu| state.free[usize::from(*gpu)])
        .unwrap_or(0)
}
