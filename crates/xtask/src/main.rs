//! Tools for working on kapok: `fetch`, `demo`, `test`, `bench`, `tidy`, `codegen`.
//!
//! Reading order: [`catalogue`] (what `models.toml` says), [`fetch`] (bringing it), [`minilm`] (the one model file made
//! here), then one module per command: [`demo`], [`testing`], [`bench`], [`tidy`]. They stand on [`workspace`] (the
//! machine around us), [`process`] (other programs, always stopped), [`setup`] (Debian and Python packages), [`http`]
//! and [`kapok`] (a started one).
//! Never here: anything that the shipped binary needs.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: printing is its job"
)]

mod bench;
mod catalogue;
#[cfg(feature = "codegen")]
mod codegen;
mod demo;
mod fetch;
mod http;
mod kapok;
mod minilm;
mod openai_suite;
mod process;
mod protobuf;
mod setup;
mod testing;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                     real models behind one endpoint, until Ctrl-C
  cargo xtask test                     every check and every test, with all set-up
  cargo xtask test -- -p gateway       only these tests (arguments of the test runner)
  cargo xtask fetch --list             which models there are, and their licences
  cargo xtask bench startup            measure, and write bench/results/";

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Tools for working on kapok",
    after_help = EXAMPLES,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring models and libraries into the cache, verified by SHA-256
    #[command(after_help = "Example:\n  cargo xtask fetch magika onnxruntime")]
    Fetch {
        /// Names from models.toml; none or `all` means every one
        names: Vec<String>,
        #[command(flatten)]
        cache: Cache,
        /// Say what there is, with licences, and fetch nothing
        #[arg(long)]
        list: bool,
    },
    /// Every check and every test, with all set-up
    Test {
        #[command(flatten)]
        cache: Cache,
        /// Arguments of the test runner
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Real models behind one endpoint, real requests, and where their time went
    #[command(
        after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --once --output json"
    )]
    Demo(demo::Options),
    /// Measure, print a table and write bench/results/
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Options),
    /// House rules that no compiler checks
    Tidy,
    /// Generate the protobuf types from crates/protocol/proto
    Codegen {
        /// Only say whether they are current
        #[arg(long)]
        check: bool,
    },
}

#[derive(Args)]
struct Cache {
    /// Instead of KAPOK_CACHE or the user's cache folder
    #[arg(long = "cache", value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Fetch { list: true, .. } => fetch::list(),
        Command::Fetch { names, cache, .. } => fetch::run(&names, cache.dir),
        Command::Test { cache, filter } => testing::run_all(cache.dir, &filter),
        Command::Demo(options) => demo::run_demo(&options),
        Command::Bench(options) => bench::run_bench(&options),
        Command::Tidy => tidy::run(),
        Command::Codegen { check } => codegen(check),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "codegen")]
fn codegen(check: bool) -> Result<()> {
    codegen::run(check)
}

/// The generator is behind a feature because nothing else here needs a protobuf compiler: this builds it and hands over.
#[cfg(not(feature = "codegen"))]
fn codegen(check: bool) -> Result<()> {
    let mut command = process::cargo();
    command.args([
        "run",
        "--quiet",
        "-p",
        "xtask",
        "--features",
        "codegen",
        "--",
        "codegen",
    ]);
    process::run(command.args(check.then_some("--check")))
}
