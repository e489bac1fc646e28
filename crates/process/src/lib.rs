//! Processes that kapok starts: each in a group of its own, behind a keeper.
//!
//! Reading order: [`Process`] (as kapok sees it), `keeper` (what stands between, and ends it when kapok is gone), `guard`
//! (what ends it when the keeper is gone), `output` (what it prints), [`memory`] (what groups hold).
//! Never here: why a process is started, whether again, and what its end means.

mod guard;
mod keeper;
pub mod memory;
mod output;
mod process;

pub use guard::{CANNOT_START, NAME as GUARD, run as become_managed};
pub use keeper::{NAME as KEEPER, run as keep};
pub use output::Sink;
pub use process::{Exit, Handles, Keeper, Launch, Process};

/// Why one of the hidden commands failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no program is named")]
    NoProgram,
    #[error("{0}")]
    Failed(String),
    #[error("`{program}` cannot be started: {error}")]
    CannotStart {
        program: String,
        error: std::io::Error,
    },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
