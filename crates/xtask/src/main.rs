//! Tools for working on kapok: `fetch`, `demo`, `test`, `bench`, `tidy`.
//!
//! Reading order: [`catalogue`] (what `models.toml` says), [`fetch`] (bringing it), [`minilm`] (the one model file made
//! here).
//! Never here: anything that the shipped binary needs.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: printing is its job"
)]

mod catalogue;
mod fetch;
mod minilm;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Tools for working on kapok",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring models and libraries into the cache, verified by SHA-256.
    #[command(after_help = "Example:\n  cargo xtask fetch magika onnxruntime")]
    Fetch {
        /// Names from models.toml; none or `all` means every one.
        names: Vec<String>,
        /// Instead of KAPOK_CACHE or the user's cache folder.
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// Say what there is, with licences, and fetch nothing.
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Fetch { list: true, .. } => fetch::list(),
        Command::Fetch { names, cache, .. } => fetch::run(&names, cache),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
