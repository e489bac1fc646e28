//! What can be asked for. Only words and shapes: nothing is read or done here.

mod ask;
mod jobs;
mod simulate;
mod up;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use ask::{
    ChatArgs, CheckArgs, EmbedArgs, ExplainArgs, InferArgs, ModelsArgs, ModelsCommand, ServerArgs,
    TuneArgs,
};
pub(crate) use jobs::{JobPriorityArg, JobsArgs, JobsCommand, SubmitArgs};
pub(crate) use simulate::{Arrival, SimulateArgs};
pub(crate) use up::{LogFormat, Switch, UpArgs};

const ABOUT: &str = "Serves, routes and watches AI models from one binary";

const EXAMPLES: &str = "\
Examples:
  kapok up --model-repo ./models                       serve a folder of models
  kapok up --upstream vllm=http://10.0.0.5:8001        and an LLM server behind the same port
  kapok embed all-minilm-l6-v2 'a cat' 'a kitten'      compare two texts
  kapok chat 'What is the capital of France?'          stream an answer
  kapok doctor                                         what is missing here, and how to get it";

#[derive(Debug, Parser)]
#[command(name = "kapok", version, about = ABOUT, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How to print the result; json and yaml are one document on stdout
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
    /// `kapok simulate` only
    Csv,
    /// `kapok simulate` only
    Html,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start serving: models in this process, upstreams, and processes that kapok starts
    #[command(after_help = up::EXAMPLES)]
    Up(UpArgs),
    /// The same with Triton's command line: its flags, defaults, ports and ready lines
    #[command(
        name = crate::triton::NAME,
        disable_help_flag = true,
        after_help = "Examples:\n  kapok tritonserver --model-repository=/models\n  kapok tritonserver --help"
    )]
    Triton {
        /// Triton's own; `--help` lists them and what becomes of each
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "FLAGS"
        )]
        flags: Vec<String>,
    },
    /// Send one inference request
    #[command(after_help = ask::INFER_EXAMPLES)]
    Infer(InferArgs),
    /// Turn texts into vectors, or compare them
    #[command(after_help = ask::EMBED_EXAMPLES)]
    Embed(EmbedArgs),
    /// Ask a language model, and print the answer as it arrives
    #[command(after_help = ask::CHAT_EXAMPLES)]
    Chat(ChatArgs),
    /// Models behind this endpoint
    #[command(after_help = ask::MODELS_EXAMPLES)]
    Models(ModelsArgs),
    /// Where one request's time went and who answered it, or why a job waits
    #[command(after_help = ask::EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Give the scheduler a program to run or a model to serve
    #[command(after_help = jobs::SUBMIT_EXAMPLES)]
    Submit(Box<SubmitArgs>),
    /// Jobs of this node: list, show, logs, cancel
    #[command(after_help = jobs::JOBS_EXAMPLES)]
    Jobs(JobsArgs),
    /// Compare scheduling policies on lists of nodes and pods, without a cluster
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(SimulateArgs),
    /// What this machine can do, what is missing and how to get it
    #[command(after_help = "Examples:\n  kapok doctor\n  kapok doctor --output json")]
    Doctor,
    /// Becomes a managed process; kapok calls this itself
    #[command(hide = true, name = process::GUARD)]
    RunManaged {
        parent: i32,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Starts, stops and outlives a managed process; kapok calls this itself
    #[command(hide = true, name = process::KEEPER)]
    KeepManaged {
        patience_ms: u64,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Becomes the process of one model; kapok calls this itself
    #[command(hide = true, name = crate::engine_process::NAME)]
    RunEngine { engine: String },
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  kapok completions bash > /etc/bash_completion.d/kapok\n  kapok completions fish > ~/.config/fish/completions/kapok.fish"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests;
