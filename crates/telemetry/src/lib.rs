//! What happened, how often and how long: the latency ledger, the metric registry, the log.
//!
//! Reading order: [`Ledger`] (the stages of one request), [`TraceContext`] (its place in a trace), [`Record`] (all that is
//! told of it), [`Recent`] (the last ones, for `kapok explain`), [`trace`] (some of them, in Triton's files), [`metrics`],
//! [`logs`].
//! Never here: decisions. Telemetry is told, it never asks.

mod context;
mod ledger;
pub mod logs;
pub mod metrics;
mod recent;
mod record;
pub mod trace;

pub use context::TraceContext;
pub use ledger::{Ledger, Stage};
pub use recent::Recent;
pub use record::{Attempt, Candidate, Record, StageTime};
