//! The hidden command that stands between a keeper and the process that it manages: it asks the kernel to end the process
//! when its keeper is gone, however it went, and then becomes that process.
//!
//! Linux keeps the request over `exec` and drops it at `fork`, so the process must make it for itself; between `fork`
//! and `exec` in its parent that would need `unsafe`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid};

use crate::Error;

/// A command of this very binary, even when its file has been replaced.
pub(crate) fn this_binary() -> Command {
    #[cfg(target_os = "linux")]
    let program = std::path::PathBuf::from("/proc/self/exe");
    #[cfg(not(target_os = "linux"))]
    let program = std::env::current_exe().unwrap_or_else(|_| "kapok".into());
    let mut command = Command::new(program);
    command.arg0("kapok");
    command
}

/// Starts the program so that the kernel ends it when this process is gone. The kernel watches the thread that starts
/// it: that thread must live as long as the process does.
pub(crate) fn command(program: &str) -> Command {
    let mut command = this_binary();
    command
        .arg(NAME)
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(program);
    command
}

/// The name of the hidden command.
pub const NAME: &str = "run-managed";

/// How it exits when the program cannot be started: the shells' number for it.
pub const CANNOT_START: u8 = 127;

/// Returns only when the program cannot be started.
pub fn run(parent: i32, command: &[String]) -> Result<(), Error> {
    let (program, args) = command.split_first().ok_or(Error::NoProgram)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Error::Failed(format!("the kernel refuses a death signal: {error}")))?;
    // Its keeper may have ended before the line above took effect.
    if getppid() != Pid::from_raw(parent) {
        return Err(Error::Failed("its keeper has ended".to_owned()));
    }
    let error = Command::new(program).args(args).exec();
    Err(Error::CannotStart {
        program: program.clone(),
        error,
    })
}
