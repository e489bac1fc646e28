//! Models made of other models: each step is a call to a model of this runtime, made as a client would make it.
//!
//! ```text
//! load ──► graph (steps, tensors) ──► standing: are the members there, do they fit? (again at every publication)
//! request ──► run: start every step whose tensors are there ──► one call, or fan_out: one per item ──► answer
//!                └─► stream: before a step that answers any number of times, on from each of its answers
//! ```
//! Members are looked up when a request begins, so a member that is swapped is used at once, and one request never sees
//! two versions of it. Tensors pass from step to step by handle. Dropping the future of a request drops its steps.
//! A limit on requests in a step makes others wait, first come first served, until their deadline; as many may wait as
//! in a model's queue, one more is refused.

mod build;
mod fan_out;
mod gate;
mod graph;
mod items;
mod run;
mod standing;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use build::{build, is_ensemble};
pub(crate) use run::Order;
pub(crate) use standing::{circle, judge, settle};
pub(crate) use stream::{Answers, answers};

use std::sync::atomic::{AtomicBool, Ordering};

use gate::Gate;
use graph::Graph;

/// What serves an ensemble.
#[derive(Debug)]
pub(crate) struct Ensemble {
    pub(crate) name: String,
    graph: Graph,
    /// By step; none lets everybody in.
    gates: Vec<Option<Gate>>,
    /// Whether it answers any number of times, because a member does: known once all of them are.
    decoupled: AtomicBool,
}

impl Ensemble {
    pub(crate) fn decoupled(&self) -> bool {
        self.decoupled.load(Ordering::Relaxed)
    }

    /// The models behind its steps, with the versions asked for.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let steps = self.graph.steps.iter();
        steps.map(|step| (step.model.as_str(), step.version.as_deref()))
    }
}
