//! `kapok tritonserver`, and the binary under that name: Triton's command line for the same server.
//!
//! Reading order: [`translate`] (flags become the arguments of `kapok up`), `parse` (how Triton's flags are written),
//! `flags` (what becomes of each), `plan` (what they add up to).

mod flags;
mod parse;
mod plan;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use crate::cli::UpArgs;
use crate::config::Environment;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Printer;

use plan::Plan;

/// The binary's other name, and the command's.
pub(crate) const NAME: &str = "tritonserver";

/// What differs from `kapok up` once the node runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    pub(crate) log: telemetry::logs::Options,
    /// A model that does not load ends the process.
    pub(crate) exit_on_error: bool,
    /// Said about the flags, once the log is open.
    pub(crate) notes: Vec<String>,
    /// Doors that Triton's scripts wait to see named.
    pub(crate) http: bool,
    pub(crate) grpc: bool,
    pub(crate) metrics: bool,
}

/// The arguments with the command put in front if the binary was called by Triton's name.
pub(crate) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.collect();
    let called = arguments.first().map(Path::new);
    if called
        .and_then(Path::file_name)
        .is_some_and(|name| name == NAME)
    {
        arguments.insert(1, OsString::from(NAME));
    }
    arguments
}

pub(crate) fn run(flags: &[String], printer: &Printer, environment: &Environment) -> Outcome {
    if flags.iter().any(|flag| flag == "--help" || flag == "-h") {
        printer.write(&flags::help())?;
        return Ok(());
    }
    // Triton ends with 1 whatever was wrong.
    let failed = |failure: Failure| Failure {
        exit: Exit::Failed,
        ..failure
    };
    let args = translate(flags).map_err(failed)?;
    crate::up::run(&args, printer, environment).map_err(failed)
}

/// The same server in `kapok up`'s words.
pub(crate) fn translate(flags: &[String]) -> Outcome<UpArgs> {
    let wrong = |reason: String| Failure::usage(reason).hint("kapok tritonserver --help");
    let mut plan = Plan::default();
    for given in parse::parse(flags).map_err(wrong)? {
        plan.take(&given).map_err(wrong)?;
    }
    plan.finish().map_err(wrong)
}
