//! What happened, how often and how long: the latency ledger, the metric registry, the log.
//!
//! Reading order: [`Ledger`] (the stages of one request), [`TraceContext`] (its place in a trace), [`Record`] (all that is
//! told of it), [`Recent`] (the last ones, for `kapok explain`), [`trace`] (some of them, in Triton's files), [`spans`] and
//! [`otlp`] (some of them, in OpenTelemetry's words), [`metrics`], [`logs`].
//! Never here: decisions. Telemetry is told, it never asks.

mod context;
mod ledger;
pub mod logs;
pub mod metrics;
pub mod otlp;
mod recent;
mod record;
pub mod spans;
pub mod trace;

pub use context::TraceContext;
pub use ledger::{Ledger, Stage};
pub use recent::Recent;
pub use record::{Attempt, Candidate, Details, Generation, Record, StageTime, status_text};
