//! Which of several servers takes a request.
//!
//! Reading order: [`Load`] and [`Meter`] (what is known of a member), [`Members`] and [`Policy`] (the seam), then one
//! file for each policy; [`share`] divides requests among targets by weight; [`replay`] tries a policy on a trace. Of failure: [`retry`] (what the end of an
//! attempt means), [`Budget`] (how often another is asked), [`Breaker`] (whom not to ask for a while).
//! Never here: I/O, a clock, a lock, or who the members are. Time, load and chance are arguments; a decision takes the
//! same time at ten members as at ten thousand, unless its policy says otherwise.

mod affinity;
mod breaker;
mod budget;
mod cheapest;
mod draw;
mod fastest;
mod least_loaded;
mod load;
mod look;
mod notes;
mod p2c;
mod policy;
mod prefix;
pub mod replay;
pub mod retry;
mod round_robin;
mod shares;
#[cfg(test)]
mod testing;

pub use affinity::{Affinity, session_of};
pub use breaker::{Breaker, BreakerRules, Caller, Standing};
pub use budget::Budget;
pub use cheapest::Cheapest;
pub use draw::Draw;
pub use fastest::Fastest;
pub use least_loaded::LeastLoaded;
pub use load::{Load, Meter, Report, Reported};
pub use notes::{NOTES_MAX, Note, Notes, Verdict};
pub use p2c::PowerOfTwo;
pub use policy::{Ask, Members, Policy};
pub use prefix::{Digest, Index, Prefix};
pub use round_robin::RoundRobin;
pub use shares::share;
