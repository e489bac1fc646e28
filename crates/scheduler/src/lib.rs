//! Where a request runs: decided here from data, executed by others.
//!
//! Reading order: [`Request`] (what somebody wants), [`Cluster`] (nodes and what is free), [`State`] and [`Ask`] (the
//! same as numbers), [`Policy`] (how good a place is; one file each), [`Scheduler`] (the best place, quickly),
//! [`Decision`] (why that one, and why not the others), [`queue`] (who is next, who waits, who makes room), [`Recorder`] (what was decided, and decided again),
//! [`Workload`] and [`Fragmentation`] (what policies know and are measured by), [`simulate`] (a cluster's life in a second).
//! Never here: a clock, a file, a thread. Time and chance are arguments, and the same calls give the same decisions.

mod cluster;
mod decision;
mod error;
mod filling;
mod fragmentation;
mod hash;
mod index;
mod journal;
pub mod mig;
pub mod policy;
pub mod queue;
mod request;
mod rng;
mod scheduler;
pub mod simulate;
mod state;
pub mod trace;
mod workload;

pub use cluster::{Cluster, Kind, Node, Placement, Power, Spot};
pub use decision::{Candidate, Decision, Rejected};
pub use error::Error;
pub use fragmentation::Fragmentation;
pub use journal::{Difference, Event, Recorder};
pub use policy::Policy;
pub use request::{MILLI, Request};
pub use rng::Rng;
pub use scheduler::{Placed, Scheduler};
pub use state::{Ask, GPUS_MAX, Kinds, Obstacle, Slot, State};
pub use workload::Workload;
