//! The hidden command that stands between kapok and a process that it manages: it asks the kernel to end the process
//! when kapok is gone, however it went, and then becomes that process.
//!
//! Linux keeps the request over `exec` and drops it at `fork`, so the process must make it for itself; between `fork`
//! and `exec` in kapok that would need `unsafe`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid};

use crate::exit::{Exit, Failure, Outcome};

/// The name of the hidden command.
pub(crate) const NAME: &str = "run-managed";

/// How it exits when the program cannot be started: the shells' number for it.
pub(crate) const CANNOT_START: i32 = Exit::CannotStart as i32;

/// Returns only when the program cannot be started.
pub(crate) fn run(parent: i32, command: &[String]) -> Outcome {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| Failure::usage("no program is named"))?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Failure::failed(format!("the kernel refuses a death signal: {error}")))?;
    // kapok may have ended before the line above took effect.
    if getppid() != Pid::from_raw(parent) {
        return Err(Failure::failed("kapok has ended"));
    }
    let error = Command::new(program).args(args).exec();
    Err(Failure::cannot_start(format!(
        "`{program}` cannot be started: {error}"
    )))
}
