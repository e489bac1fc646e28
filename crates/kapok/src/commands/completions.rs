use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Outcome;
use crate::output::Printer;

pub(super) fn run(shell: Shell, printer: &Printer) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kapok", &mut script);
    printer.write(&String::from_utf8_lossy(&script))?;
    Ok(())
}
