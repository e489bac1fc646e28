//! Which requests run together, when, and on which lane: decided here, executed by `runtime`.
//!
//! Reading order: [`Settings`] (what a model's configuration asks for), [`Request`] (what a caller brings), [`Batcher`]
//! (who waits, who runs), its choice of a batch by fixed sizes and by a latency target, [`Latency`] (how long batches take),
//! `worth` (whether they pay), [`Limiter`] (what models share).
//! [`Sequences`] is the other kind of batching: requests that belong together keep their order and their place.
//! Never here: a clock, a thread, a tensor. Time comes as an argument, and the same calls give the same decisions.

mod batcher;
mod latency;
mod limiter;
mod order;
mod request;
mod sequence;
mod settings;
mod worth;

pub use batcher::{Batch, Batcher, Expired, Full, Why};
pub use latency::Latency;
pub use limiter::{Limiter, Member, Share, TooMuch};
pub use request::{Request, Ticket};
pub use sequence::{Next, SequenceRefused, SequenceSettings, Sequences, Turn};
pub use settings::{OnTimeout, Policy, Settings};
