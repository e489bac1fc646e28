//! Words and tools every other room uses.
//!
//! Reading order: [`ErrorKind`] (what a caller can act on), [`Clock`] and [`Deadline`] (time is passed in),
//! [`RequestId`], [`Tasks`] (the only place that spawns), [`at_once`] (what needs no task), [`Backoff`], [`core_budget`].
//! Never here: anything that knows a protocol, a model or a socket.

mod at_once;
mod backoff;
mod clock;
mod cores;
mod date;
mod digits;
mod error;
mod id;
mod nearest;
mod per_core;
mod tasks;

pub use at_once::{at_once, in_own_task, is_tried};
pub use backoff::Backoff;
pub use clock::{Clock, Deadline};
pub use cores::core_budget;
pub use date::date;
pub use digits::{push_hex, push_thousandths};
pub use error::{ErrorKind, Retry, chain};
pub use id::RequestId;
pub use nearest::nearest;
pub use per_core::{PerCore, Seat, shard};
pub use tasks::{OnCancel, OnError, TaskKind, Tasks};
