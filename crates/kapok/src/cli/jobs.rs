//! Jobs: submit, list, show, logs, cancel.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ServerArgs;

pub(super) const SUBMIT_EXAMPLES: &str = "\
Examples:
  kapok submit -- python3 train.py --epochs 3            run a program when there is room for it
  kapok submit --cpu 4 --memory 8Gi --gpus 1 --follow -- ./train.sh
  kapok submit --model resnet50 --batch-size 64 --wait   serve a model until the job is cancelled
  kapok submit -f job.yaml --dry-run                     what would happen, and nothing does";

pub(super) const JOBS_EXAMPLES: &str = "\
Examples:
  kapok jobs                         the newest first
  kapok jobs --state running
  kapok jobs show train-x7k2p
  kapok jobs logs train-x7k2p --follow
  kapok jobs cancel train-x7k2p
  kapok explain train-x7k2p          why it waits";

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// File with manifests of kind `Job`; `-` reads stdin
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["command", "model"])]
    pub(crate) file: Option<PathBuf>,
    /// What people call it; absent means after the model or the program
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Serve this model instead of running a program
    #[arg(long, value_name = "MODEL", conflicts_with = "command")]
    pub(crate) model: Option<String>,
    /// Largest batch of the model
    #[arg(long, value_name = "COUNT")]
    pub(crate) batch_size: Option<u32>,
    /// Where it must run
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// How much it matters
    #[arg(long, value_enum, value_name = "PRIORITY")]
    pub(crate) priority: Option<JobPriorityArg>,
    /// 1 (whatever is left) to 5 (guaranteed)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) qos: Option<u8>,
    /// Whose share it counts against
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Cores, such as 2 or 500m
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<String>,
    /// Such as 512Mi or 2Gi
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Whole GPUs
    #[arg(long, value_name = "COUNT")]
    pub(crate) gpus: Option<u8>,
    /// A part of one GPU, such as 0.25
    #[arg(long, value_name = "PART")]
    pub(crate) gpu_share: Option<f64>,
    /// A slice of one GPU, such as 1g.10gb
    #[arg(long, value_name = "PROFILE")]
    pub(crate) mig: Option<String>,
    /// Memory of each GPU
    #[arg(long, value_name = "SIZE")]
    pub(crate) device_memory: Option<String>,
    /// Members that start together or not at all
    #[arg(long, value_name = "COUNT")]
    pub(crate) gang: Option<u32>,
    /// Cancel it when it runs longer (a model: when it does not answer by then)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time_limit: Option<u64>,
    /// When it should have finished, from now
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<u64>,
    /// Start it again when it fails, at most so often
    #[arg(long, value_name = "COUNT")]
    pub(crate) restarts: Option<u32>,
    /// A variable of its environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Where it starts [default: this folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) working_dir: Option<PathBuf>,
    /// Say what would happen, and submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return when it has ended (a model: when it answers); fails if it did
    #[arg(long)]
    pub(crate) wait: bool,
    /// Show what it prints until it has ended; fails if it did
    #[arg(long)]
    pub(crate) follow: bool,
    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum JobPriorityArg {
    Realtime,
    CostOptimized,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only this tenant's
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// All that is known of one job
    Show {
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// What it printed
    Logs {
        id: String,
        /// Go on until it has ended
        #[arg(long, short)]
        follow: bool,
        /// Only so many of the last lines
        #[arg(long, value_name = "LINES")]
        tail: Option<usize>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Stop it
    Cancel {
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}
