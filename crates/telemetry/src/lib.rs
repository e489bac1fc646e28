//! What happened, how often and how long: the latency ledger, the metric registry, the log.
//!
//! Reading order: [`Ledger`] (the stages of one request), [`Recent`] (the last ones, for `kapok explain`), [`trace`] (some of
//! them, in Triton's files), [`metrics`], [`logs`].
//! Never here: decisions. Telemetry is told, it never asks.

mod ledger;
pub mod logs;
pub mod metrics;
mod recent;
pub mod trace;

pub use ledger::{Ledger, Record, Stage, StageTime};
pub use recent::Recent;
