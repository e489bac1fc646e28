//! Commands that talk to a running server.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const INFER_EXAMPLES: &str = "\
Examples:
  kapok infer identity --input 'INPUT0=[1, 2, 3]'
  kapok infer magika --input bytes=@sample.json
  kapok infer resnet50 --input image=@image.bin:FP32:1x3x224x224 --output json

An input is NAME=JSON, NAME=@FILE.json, or NAME=@FILE:DATATYPE:SHAPE for raw little-endian bytes.";

pub(super) const EMBED_EXAMPLES: &str = "\
Examples:
  kapok embed all-minilm-l6-v2 'a cat' 'a kitten' 'a tax form'
  cat titles.txt | kapok embed all-minilm-l6-v2 - --output json";

pub(super) const CHAT_EXAMPLES: &str = "\
Examples:
  kapok chat 'What is the capital of France?'
  kapok chat smollm2-135m-instruct 'Name three rivers.' --max-tokens 40
  kapok chat --system 'You are terse.' --output json -- - < question.txt";

pub(super) const MODELS_EXAMPLES: &str = "\
Examples:
  kapok models list
  kapok models list -v          engines tried, their times, and why one was chosen
  kapok models tune m --repo .   measure and write down the best engine and layout
  kapok models check ./models   what is wrong in a folder of models, without a server
  kapok models load magika      and wait until it serves
  kapok models unload magika
  kapok models rollback magika   back to what served before, at once";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  kapok explain req-0123456789abcdef00000001
  kapok explain last            the newest finished request
  kapok explain train-x7k2p     a job: why it waits, or what became of it

Every response carries its id in `x-request-id`.";

/// Which server to ask, and as whom.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Public address of the server [default: http://127.0.0.1:8000, or KAPOK_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Key to send, if the server asks for one [default: KAPOK_API_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Address of the admin API [default: http://127.0.0.1:8080, or KAPOK_ADMIN_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) admin_url: Option<String>,
    /// Give up after this many seconds without an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// Model to ask
    pub(crate) model: String,
    /// One input tensor; may be repeated
    #[arg(long, short, required = true, value_name = "NAME=VALUE")]
    pub(crate) input: Vec<String>,
    /// Version of the model, instead of the one its policy picks
    #[arg(long, value_name = "VERSION")]
    pub(crate) model_version: Option<String>,
    /// Send and ask for raw bytes instead of JSON numbers; chosen by itself for large inputs
    #[arg(long)]
    pub(crate) binary: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Model to ask
    pub(crate) model: String,
    /// Texts; `-` reads one per line from stdin
    #[arg(required = true, value_name = "TEXT")]
    pub(crate) texts: Vec<String>,
    /// Shorten the vectors
    #[arg(long, value_name = "COUNT")]
    pub(crate) dimensions: Option<usize>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The prompt; its first word is the model if a model of that name is served. `-` reads stdin
    #[arg(required = true, value_name = "[MODEL] PROMPT")]
    pub(crate) words: Vec<String>,
    /// Model to ask, instead of naming it first
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// Instructions before the prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Longest answer
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_tokens: Option<u32>,
    /// 0 is the most predictable
    #[arg(long, value_name = "NUMBER")]
    pub(crate) temperature: Option<f64>,
    /// Wait for the whole answer
    #[arg(long)]
    pub(crate) no_stream: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Models in this process and behind it
    List {
        /// Also engines, their figures and verdicts (asks the admin API)
        #[arg(long, short)]
        verbose: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Load a model, or load it anew; what served before serves until the new one is ready
    Load {
        /// The model's name
        model: String,
        /// File with a configuration as JSON, instead of the model's own
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Take a model out of service; requests in flight are answered
    Unload {
        /// The model's name
        model: String,
        /// Also the models that an ensemble is made of
        #[arg(long)]
        dependents: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Put back what served before the last swap; no request is dropped
    Rollback {
        /// The model's name
        model: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Everything that is wrong in a repository, with its place and the fix; needs no server
    #[command(
        after_help = "Examples:\n  kapok models check ./models\n  kapok models check ./models --model resnet50 --output json"
    )]
    Check(CheckArgs),
    /// Measure a model's engines, lanes, threads and batches, and write down the best; needs no server
    #[command(
        after_help = "Examples:\n  kapok models tune resnet50 --repo ./models --dry-run\n  kapok models tune resnet50 --repo ./models"
    )]
    Tune(TuneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// The model's name
    pub(crate) model: String,
    /// The folder of models that it is in
    #[arg(long, value_name = "DIR")]
    pub(crate) repo: std::path::PathBuf,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For a node with `completeConfigs: false`: config.pbtxt must say all that a model could complete
    #[arg(long)]
    pub(crate) disable_auto_complete_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A folder of models, or one model's folder
    #[arg(value_name = "DIR")]
    pub(crate) repository: std::path::PathBuf,
    /// Only this model
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// For a node with `completeConfigs: false`: config.pbtxt must say all that a model could complete
    #[arg(long)]
    pub(crate) disable_auto_complete_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The `x-request-id` of a response, `last`, or a job's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
