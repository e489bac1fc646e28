//! One file a command; `up` has its own module.

mod chat;
mod check;
mod completions;
mod doctor;
mod embed;
mod explain;
mod infer;
mod jobs;
mod models;
mod simulate;
mod tune;

use crate::cli::{Command, Format};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::Printer;

pub(crate) fn run(command: Command, printer: &Printer, environment: &Environment) -> Outcome {
    let simulates = matches!(command, Command::Simulate(_));
    if !simulates && matches!(printer.format(), Format::Csv | Format::Html) {
        return Err(Failure::usage(
            "`--output` is table, json or yaml here; csv and html are for `kapok simulate`",
        ));
    }
    match command {
        Command::Up(args) => crate::up::run(&args, printer, environment),
        Command::Triton { flags } => crate::triton::run(&flags, printer, environment),
        Command::Infer(args) => infer::run(&args, printer, environment),
        Command::Embed(args) => embed::run(&args, printer, environment),
        Command::Chat(args) => chat::run(&args, printer, environment),
        Command::Models(args) => models::run(&args, printer, environment),
        Command::Explain(args) => explain::run(&args, printer, environment),
        Command::Submit(args) => jobs::submit(&args, printer, environment),
        Command::Jobs(args) => jobs::jobs(&args, printer, environment),
        Command::Simulate(args) => simulate::run(&args, printer),
        Command::Doctor => doctor::run(printer, environment),
        Command::RunManaged { parent, command } => Ok(process::become_managed(parent, &command)?),
        Command::KeepManaged {
            patience_ms,
            command,
        } => Ok(process::keep(patience_ms, &command)?),
        Command::RunEngine { engine } => crate::engine_process::run(&engine, environment),
        Command::Completions { shell } => completions::run(shell, printer),
    }
}

/// A path's segment: what is no letter, digit, `-`, `_`, `.` or `~` as `%XX`.
fn escaped(segment: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    segment.bytes().map(byte).collect()
}
