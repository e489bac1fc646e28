//! The design's resources: `kapok.yaml` today, any other source of resources later.
//!
//! Kubernetes-shaped documents, strict: an unknown field is an error that names line, column and the nearest known field.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

mod alias;
mod locate;
mod parse;
mod secret;
#[cfg(test)]
mod tests;
mod validate;

pub use crate::file_error::FileError as ResourceError;
pub use alias::Alias;
pub use parse::{fuzz_resource_yaml, parse_documents};
pub use secret::Secret;
pub use validate::Problem;

/// The only version so far.
pub const API_VERSION: &str = "kapok.dev/v1alpha1";

#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    Node(NodeSpec),
    Upstream(UpstreamSpec),
    Route(RouteSpec),
    Key(KeySpec),
}

impl Spec {
    /// Every kind there is, in the order of the words.
    pub const KINDS: [&str; 4] = ["Node", "Upstream", "Route", "Key"];

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Node(_) => "Node",
            Self::Upstream(_) => "Upstream",
            Self::Route(_) => "Route",
            Self::Key(_) => "Key",
        }
    }
}

impl Serialize for Resource {
    /// As a manifest: `apiVersion`, `kind`, `metadata`, `spec`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut manifest = serializer.serialize_struct("Resource", 4)?;
        manifest.serialize_field("apiVersion", API_VERSION)?;
        manifest.serialize_field("kind", self.spec.kind())?;
        manifest.serialize_field("metadata", &self.metadata)?;
        match &self.spec {
            Spec::Node(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Upstream(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Route(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Key(spec) => manifest.serialize_field("spec", spec)?,
        }
        manifest.end()
    }
}

/// This process: where it listens, what it loads, its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeSpec {
    /// The public port.
    pub listen: SocketAddr,
    /// Admin API and metrics.
    pub admin: SocketAddr,
    /// Triton's extra ports (gRPC, metrics), for clients that expect them; null switches one off, absent means beside
    /// the public port when that is Triton's own.
    pub grpc_alias: Alias,
    pub metrics_alias: Alias,
    /// Folders in Triton's layout: `<repo>/<model>/<version>/model.onnx`.
    pub model_repositories: Vec<PathBuf>,
    /// Who decides what is loaded, and when.
    pub model_control: ModelControl,
    /// With `explicit`: loaded at start. `*` alone means all.
    pub load_models: Vec<String>,
    /// How often repositories are looked at where the system does not tell of changes (network file systems).
    pub model_poll_ms: u64,
    /// Memory that models may take together, in MiB. With a budget they are loaded on first use, and the one that was
    /// used longest ago makes room.
    pub memory_budget_mb: Option<u64>,
    /// A minisign public key: only models whose manifest is signed by it are loaded.
    pub model_public_key: Option<String>,
    /// Whether the node is ready only while every model is that should be loaded.
    pub strict_readiness: bool,
    /// Whether clients may change what is logged and traced.
    pub settings_control: SettingsControl,
    /// Which requests' times are written to files, until a client changes it.
    pub trace: TraceSpec,
    /// Whether clients may register shared memory objects of this machine and name them in requests.
    pub shared_memory: SharedMemory,
    /// Largest request body, compressed or not. Triton's default is 64 MiB.
    pub body_bytes_max: usize,
    /// For a request that names no deadline of its own.
    pub request_timeout_ms: u64,
    /// Requests waiting for a lane, per model; one more is refused.
    pub queue_max: usize,
    /// Whether models share resources as `instance_group { rate_limiter { … } }` says.
    pub rate_limit: RateLimit,
    /// What there is of a resource; of one that is not named here, as much as the most demanding model asks for.
    pub rate_limit_resources: BTreeMap<String, u32>,
    /// Memory for answers of models that say `response_cache { enable: true }`, all together; 0 keeps none.
    pub response_cache_mb: usize,
    /// Finished requests kept for `kapok explain`.
    pub recent_requests_max: usize,
    /// On SIGTERM: how long requests in flight may take to finish.
    pub drain_timeout_ms: u64,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8080)),
            grpc_alias: Alias::Auto,
            metrics_alias: Alias::Auto,
            model_repositories: Vec::new(),
            model_control: ModelControl::Auto,
            load_models: Vec::new(),
            model_poll_ms: 15_000,
            memory_budget_mb: None,
            model_public_key: None,
            shared_memory: SharedMemory::Auto,
            strict_readiness: true,
            settings_control: SettingsControl::Auto,
            trace: TraceSpec::default(),
            body_bytes_max: 64 << 20,
            // openai-python's own default is ten minutes.
            request_timeout_ms: 600_000,
            queue_max: 1024,
            rate_limit: RateLimit::Off,
            rate_limit_resources: BTreeMap::new(),
            response_cache_mb: 0,
            recent_requests_max: 1000,
            drain_timeout_ms: 30_000,
        }
    }
}

/// Whether clients may change trace and log settings while the node runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingsControl {
    /// When the public port is loopback, or a `Key` is needed.
    #[default]
    Auto,
    On,
    Off,
}

/// Triton's trace settings, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TraceSpec {
    /// Whether requests are traced.
    pub timestamps: bool,
    /// One of so many requests.
    pub rate: u32,
    /// Traces until it ends; -1 is no end.
    pub count: i32,
    /// Traces a file, which then are called `<file>.<number>`; 0 puts all into one.
    pub log_frequency: u32,
    /// Where to. No client can change it.
    pub file: Option<PathBuf>,
}

impl Default for TraceSpec {
    fn default() -> Self {
        Self {
            timestamps: false,
            rate: 1000,
            count: -1,
            log_frequency: 0,
            file: None,
        }
    }
}

/// Whether a client may have tensors read from and written to shared memory. It names objects of the whole machine, and
/// everything that this process may open is open to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SharedMemory {
    /// When the public port is loopback, or a `Key` is needed.
    #[default]
    Auto,
    On,
    Off,
}

/// Triton's rate limiter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RateLimit {
    /// What configurations say of resources is read and not used, as Triton does unless it is told otherwise.
    #[default]
    Off,
    /// A batch waits until the resources of its lane are free; turns are shared out by batches run.
    ExecutionCount,
}

/// Who decides which models are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelControl {
    /// Everything at start, changes on disk as they come; clients may load and unload where only the owner can ask: on
    /// loopback, or behind a `Key`.
    #[default]
    Auto,
    /// Everything at start, and nothing after.
    None,
    /// Everything at start, and changes on disk as they come.
    Poll,
    /// What `loadModels` names at start, then what clients ask for, whoever reaches the port.
    Explicit,
}

/// A server that kapok sends requests to, and perhaps starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Scheme, host, port and an optional path prefix; requests keep their own path behind it.
    pub url: String,
    #[serde(default)]
    pub kind: UpstreamKind,
    /// Models it answers for, by their exact names; empty means those that a `Route` sends it, absent any that nobody
    /// else claims.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// Sent as `Authorization: Bearer …` instead of the client's.
    #[serde(default)]
    pub api_key: Option<Secret>,
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Longest silence between two parts of an answer, the wait for the first included.
    #[serde(default = "default_idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// Idle connections kept.
    #[serde(default = "default_idle_connections_max")]
    pub idle_connections_max: usize,
    /// A process that kapok starts, watches, restarts and stops.
    #[serde(default)]
    pub process: Option<ProcessSpec>,
}

fn default_connect_timeout_ms() -> u64 {
    2_000
}

fn default_idle_timeout_ms() -> u64 {
    300_000
}

fn default_idle_connections_max() -> usize {
    512
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    #[default]
    OpenAi,
    Vllm,
    Sglang,
    Triton,
    Kapok,
}

/// Written out it is whole, so that it can be read back; Debug, which ends in logs, shows no values of `env`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub working_dir: Option<PathBuf>,
    /// GET on the upstream's URL; 200 means ready.
    #[serde(default = "default_ready_path")]
    pub ready_path: String,
    /// vLLM with a large model takes minutes.
    #[serde(default = "default_start_timeout_ms")]
    pub start_timeout_ms: u64,
    /// Between SIGTERM and SIGKILL.
    #[serde(default = "default_stop_timeout_ms")]
    pub stop_timeout_ms: u64,
}

impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            env,
            working_dir,
            ready_path,
            start_timeout_ms,
            stop_timeout_ms,
        } = self;
        f.debug_struct("ProcessSpec")
            .field("command", command)
            .field("env", &secret::NamesOnly(env))
            .field("working_dir", working_dir)
            .field("ready_path", ready_path)
            .field("start_timeout_ms", start_timeout_ms)
            .field("stop_timeout_ms", stop_timeout_ms)
            .finish()
    }
}

fn default_ready_path() -> String {
    "/health".to_owned()
}

fn default_start_timeout_ms() -> u64 {
    600_000
}

fn default_stop_timeout_ms() -> u64 {
    10_000
}

/// Which targets answer for which model names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Exact names, or a prefix ending in `*`.
    pub models: Vec<String>,
    pub targets: Vec<RouteTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTarget {
    /// The name of an `Upstream`, or `local` for the models in this process.
    pub upstream: String,
    #[serde(default = "default_weight")]
    pub weight: u32,
}

fn default_weight() -> u32 {
    1
}

/// A client's credential. With at least one `Key`, every call needs one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySpec {
    /// SHA-256 of the key, in hex: the key itself is never stored.
    pub sha256: String,
    /// Model names or prefixes ending in `*`; absent means all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}
