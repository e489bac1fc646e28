//! Which requests run together, when, and on which lane: decided here, executed by `runtime`.
//!
//! Reading order: [`Settings`] (what a model's configuration asks for), [`Request`] (what a caller brings).
//! Never here: a clock, a thread, a tensor. Time comes as an argument, and the same calls give the same decisions.

mod request;
mod settings;

pub use request::{Request, Ticket};
pub use settings::{OnTimeout, Policy, Settings};
