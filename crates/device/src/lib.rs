//! What accelerators this machine has, how full they are, and who was promised what of them.
//!
//! ```text
//! Probe (NVML, or a recording) ─► Reading ─► Monitor (latest one, metrics) ─► Budget (promises) · stack (do versions fit?)
//! ```
//! Reading order: [`Reading`], [`Probe`], [`Monitor`], [`Budget`], [`Budgeted`] (an engine that keeps to it), [`stack`].
//! Never here: engines themselves (onnx), which of them runs a model (runtime), where work should go (scheduler). Nothing here needs a GPU to
//! be tested: a [`Recording`] plays what a machine once said.

mod budget;
mod engine;
mod metrics;
mod monitor;
mod nvml;
mod probe;
mod reading;
pub mod stack;

pub use budget::{Budget, Promise, Shortage};
pub use engine::Budgeted;
pub use monitor::Monitor;
pub use nvml::Nvml;
pub use probe::{Error, Probe, Recording};
pub use reading::{Gpu, Memory, Partition, Reading};
