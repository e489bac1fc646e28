//! The binary: command line, configuration, wiring. No decision about a request is taken here.
//!
//! Reading order: [`cli`] (what can be asked for), [`exit`] (how it ends), [`config`] (file, environment and flags
//! become resources), [`up`] (resources become a running node), [`managed`] (processes that kapok starts),
//! [`triton`] (the same node by Triton's command line), [`client`] and [`commands`] (the other side of the public port), [`output`] (what people and scripts read).
//! Never here: protocols, models, routing; those rooms are only joined.

mod cli;
mod client;
mod commands;
mod config;
mod engine_process;
mod exit;
mod managed;
mod memory;

mod output;
mod triton;
mod up;

use clap::Parser;

use crate::config::Environment;

/// Ten thousand idle streams keep a third less with it than with the C library's, which stays that of engines' libraries.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ! {
    let environment = Environment::read();
    let cli = match cli::Cli::try_parse_from(triton::arguments(std::env::args_os())) {
        Ok(cli) => cli,
        // Help and version come this way too: clap prints them and knows which are errors.
        Err(message) => exit::leave(exit::of_usage(&message)),
    };
    let printer = output::Printer::stdout(cli.output, &environment);
    let outcome = commands::run(cli.command, &printer, &environment);
    exit::leave(exit::report(outcome, &environment))
}
