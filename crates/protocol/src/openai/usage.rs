//! How many tokens a request may use and did use: in its body before, in its answer as that passes by.
//!
//! Reading order: [`demand`] (what a body allows), [`ask_usage`] (the one field that makes a stream tell),
//! [`EventUsage`] and [`BodyUsage`] (an answer, in whatever parts it comes).

mod demand;
mod events;
mod fuzz;
mod splice;
#[cfg(test)]
mod tests;
mod told;
mod whole;

pub use demand::{Demand, demand};
pub use events::{EventUsage, Unasked};
pub use fuzz::{fuzz_ask_usage, fuzz_usage};
pub use splice::ask_usage;
pub use told::Usage;
pub use whole::BodyUsage;
