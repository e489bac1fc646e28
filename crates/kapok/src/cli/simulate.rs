//! A cluster simulated, without a server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(super) const EXAMPLES: &str = "\
Examples:
  kapok simulate --nodes nodes.csv --pods pods.csv --policy fgd,kapok
  kapok simulate --nodes nodes.csv --pods a.csv.gz --pods b.csv.gz --policy kapok --seeds 42..51 --output csv
  kapok simulate --nodes nodes.csv --pods pods.csv --policy fgd,bestfit,kapok --output html > report.html
  kapok simulate --nodes nodes.csv --pods pods.csv --policy kapok --arrival poisson --load 0.95
  kapok simulate --nodes nodes.csv --pods philly.csv.gz --arrival jobs --rules fifo,promises --policy kapok

Policies: random, dotproduct, gpuclustering, gpupacking, bestfit, fgd, kapok, kapok-online.
Nodes: sn,cpu_milli,memory_mib,gpu,model; pods: name,cpu_milli,memory_mib,num_gpu,gpu_milli and if wanted
gpu_spec,region,creation_time,deletion_time (the columns of Alibaba's cluster-trace-gpu-v2023). Files may be gzipped.
Rules: fifo, easy, best-effort-fifo, deadline, deadline-preempting, quota, quota-strict,
promises.";

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The machines, as CSV
    #[arg(long, value_name = "CSV")]
    pub(crate) nodes: PathBuf,
    /// What is to be placed, as CSV; may be repeated
    #[arg(long, required = true, value_name = "CSV")]
    pub(crate) pods: Vec<PathBuf>,
    /// Who decides; several are compared on the same arrivals
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fgd,kapok",
        value_name = "NAME[,NAME…]"
    )]
    pub(crate) policy: Vec<String>,
    /// Who goes first (with jobs); several are compared
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fifo,deadline,quota,promises",
        value_name = "NAME[,NAME…]"
    )]
    pub(crate) rules: Vec<String>,
    /// First and last seed; each is one run
    #[arg(long, value_parser = seeds, default_value = "42..51", value_name = "A..B")]
    pub(crate) seeds: Seeds,
    /// Simulate the nodes so many times over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000), value_name = "TIMES")]
    pub(crate) tile: u32,
    /// Measure decisions, one run after another (with inflate); the figures differ from run to run
    #[arg(long)]
    pub(crate) timing: bool,
    /// How pods come
    #[arg(long, value_enum, default_value_t)]
    pub(crate) arrival: Arrival,
    /// GPUs asked for, of those there are (with poisson)
    #[arg(long, default_value_t = 0.95, value_parser = positive)]
    pub(crate) load: f64,
    /// Simulated days (with poisson); the first seventh is not measured
    #[arg(long, default_value_t = 14.0, value_parser = positive)]
    pub(crate) days: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// In random order until they ask for 130 % of the GPUs; none leaves, none waits
    #[default]
    Inflate,
    /// When the file says; they wait, run and leave
    Trace,
    /// Drawn at random moments; they wait, run as long as the file says, and leave
    Poisson,
    /// Jobs of tenants in a queue, by several rules (lists in the columns of Philly or Chronus)
    Jobs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Runs of one command; more is a mistake rather than a wish.
const SEEDS_MAX: u64 = 10_000;

fn seeds(text: &str) -> Result<Seeds, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| {
        text.trim_start_matches('=')
            .parse::<u64>()
            .map_err(|_| format!("`{text}` is no seed; write A..B"))
    };
    let (first, last) = (number(first)?, number(last)?);
    match last.checked_sub(first) {
        Some(count) if count < SEEDS_MAX => Ok(Seeds { first, last }),
        Some(_) => Err(format!("more than {SEEDS_MAX} seeds")),
        None => Err(format!("{last} comes before {first}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e4 => Ok(number),
        _ => Err(format!("`{text}` is not between 0 and 10000")),
    }
}
