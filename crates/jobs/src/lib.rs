//! Jobs: kept, queued, started where the scheduler says, watched and remembered.
//!
//! Reading order: [`executor`] (all that a place where jobs run has to know), [`Jobs`] (what others hold), `service` (the
//! task that owns the jobs), `desk` (what is known and what is to be done: no I/O), [`Store`] (where they rest), [`local`]
//! (processes and models of this node).
//! Never here: where a job goes (`scheduler`), what a job is (`protocol::resource::Job`), HTTP.

mod config;
mod desk;
pub mod executor;
pub mod local;
mod metrics;
mod service;
mod store;
mod words;

pub use config::Config;
pub use metrics::Metrics;
pub use service::{Filter, Jobs, Parts};
pub use store::{Embedded, InMemory, Record, Store, StoreError};
