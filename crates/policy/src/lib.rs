//! May this caller do this, how much of it, and when.
//!
//! Reading order: [`Scopes`] (which calls a key opens), [`class`] (who goes first), [`Window`] (so much in so long),
//! [`Account`] (what one key or route has used, and what it will), [`Queue`] (who waits, in classes), [`Gate`] (places,
//! and the line before them).
//! Never here: a clock, a lock, a task, a header. Time comes as an argument, and the same calls give the same answers.

mod account;
mod class;
mod estimate;
mod gate;
mod hold;
mod pace;
mod queue;
mod scopes;
mod window;

pub use account::{Account, Entered, Left, Over, Reserved, Room, What};
pub use class::{Claim, class};
pub use estimate::{Ask, Estimate, Used};
pub use gate::{Gate, Lined, Patience, Refused};
pub use hold::Stay;
pub use queue::{COST_MAX, Entry, Full, Queue, Ticket};
pub use scopes::Scopes;
pub use window::{Taken, TooMuch, Window};

#[cfg(test)]
mod testing;
