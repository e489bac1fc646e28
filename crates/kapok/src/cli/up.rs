//! `kapok up`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::triton::Manners;

pub(super) const EXAMPLES: &str = "\
Examples:
  kapok up --model-repo ./models
  kapok up --config kapok.yaml --set node.queueMax=64
  kapok up --upstream llama=http://127.0.0.1:8081 --listen 0.0.0.0:8000
  kapok up --listen 127.0.0.1:0 --admin 127.0.0.1:0 --output json

A flag wins over its environment variable, and that over the file:
  KAPOK_CONFIG, KAPOK_MODEL_REPO (folders with `:` between them), KAPOK_LISTEN, KAPOK_ADMIN;
  KAPOK_LOG filters the log (`info,gateway=debug`), ORT_DYLIB_PATH is ONNX Runtime's library.";

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpArgs {
    /// File of resources; `./kapok.yaml` is used when it is there
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of models in Triton's layout; may be repeated, and replaces the file's list
    #[arg(long, value_name = "DIR")]
    pub(crate) model_repo: Vec<PathBuf>,
    /// A server to relay to; may be repeated
    #[arg(long, value_name = "NAME=URL")]
    pub(crate) upstream: Vec<String>,
    /// Public address; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address of the admin API and metrics; beyond loopback only behind a `Key`
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Triton's ports 8001 (gRPC) and 8002 (metrics) as aliases; on by itself when the public port is 8000
    #[arg(long, value_enum, value_name = "on|off")]
    pub(crate) triton_ports: Option<Switch>,
    /// Change one field: `node.FIELD=VALUE` or `upstream.NAME.FIELD=VALUE`; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where jobs and their history are kept; without it they are gone with the process
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Lines for people or one JSON object a line, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Set when it was asked for in Triton's words.
    #[arg(skip)]
    pub(crate) triton: Option<Box<Manners>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}
