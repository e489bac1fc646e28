//! Models that run in this process: repository, engines' common trait, lanes, text pipelines.
//!
//! ```text
//! folders ─► watch ─► lifecycle ─► definition ─► choose (warm up, agree, measure) ─► model ─► catalogue
//! request ─► catalogue ─► request (does it fit?) ─► queue ─► lane ─► compute thread ─► answer
//! ```
//! Reading order: [`engine`] (what an engine must do), [`Runtime`] (what doors call), `lifecycle` (which model serves when),
//! `loader`, which builds a model, and `call`, which runs one.
//! Never here: sockets and wire formats; which engine libraries exist (rooms below implement [`engine::Engine`]). Engines
//! never run on an async worker, except calls that cost less than leaving it.

mod agents;
mod agree;
pub mod builtin;
mod cache;
mod call;
mod catalogue;
mod check;
mod choose;
mod classify;
mod compute;
mod definition;
mod embed;
pub mod engine;
mod engines;
mod ensemble;
mod error;
mod gather;
mod infer;
mod join;
mod lane;
mod lifecycle;
mod limit;
mod loader;
mod metrics;
mod model;
mod queue;
mod ragged;
mod repository;
mod request;
mod runtime;
mod sequence;
mod statistics;
mod stream;
#[cfg(test)]
mod testing;
mod timer;
mod tune;
mod verify;
mod warmup;
mod watch;

pub use builtin::Builtin;
pub use check::{Checked, Described, Finding, Readers, check};
pub use engines::Engines;
pub use error::Error;
pub use runtime::{Config, Parts, Runtime};
pub use stream::Responses;
pub use tune::{Measured, Tune, Tuned};
