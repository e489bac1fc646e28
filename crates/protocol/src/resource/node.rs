use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::alias::Alias;
use super::discovery::{self, RegisterSpec};
use super::jobs::{self, JobsSpec};
use super::otlp::{self, OtlpSpec};
use super::validate::{Findings, is_name};

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
    /// Whether a model's configuration is completed from the model; if not, each must be there and whole.
    pub complete_configs: bool,
    /// `max_batch_size` of a model that batches and whose configuration does not say how much; 0 and 1 are one at a time.
    pub default_max_batch_size: u32,
    /// How often repositories are looked at where the system does not tell of changes (network file systems).
    pub model_poll_ms: u64,
    /// Memory that models may take together, in MiB. With a budget they are loaded on first use, and the one that was
    /// used longest ago makes room.
    pub memory_budget_mb: Option<u64>,
    /// A minisign public key: only models whose manifest is signed by it are loaded.
    pub model_public_key: Option<String>,
    /// Which threads serve clients' connections.
    pub io_threads: IoThreads,
    /// Whether the node is ready only while every model is that should be loaded.
    pub strict_readiness: bool,
    /// Whether clients may change what is logged and traced.
    pub settings_control: SettingsControl,
    /// Which requests' times are written to files, until a client changes it.
    pub trace: TraceSpec,
    /// Where spans and metrics are sent.
    pub otlp: OtlpSpec,
    /// Whether clients may register shared memory objects of this machine and name them in requests.
    pub shared_memory: SharedMemory,
    /// Largest request body, compressed or not. Triton's default is 64 MiB.
    pub body_bytes_max: usize,
    /// Largest body that is passed on as it arrives (files, audio) and never held in memory. OpenAI takes files of 512 MB.
    pub upload_bytes_max: usize,
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
    /// On SIGTERM: how long everything goes on while the node already says that it is not ready, for load balancers to
    /// take note.
    pub drain_delay_ms: u64,
    /// On SIGUSR2: how long the new process may take to become ready; after that it is ended, and this one goes on.
    pub upgrade_timeout_ms: u64,
    /// Tells others of this node.
    pub register: Option<RegisterSpec>,
    /// Where this process stands: upstreams of the same region are preferred.
    pub region: Option<String>,
    /// Memory for what Routes with the policy `prefix` remember of prompts, all together.
    pub prefix_index_mb: u32,
    /// Where jobs, their history and what they print are kept; absent means in memory and in a temporary folder, gone
    /// with the process.
    pub data_dir: Option<PathBuf>,
    /// Work that clients may submit.
    pub jobs: JobsSpec,
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
            complete_configs: true,
            default_max_batch_size: crate::config::DEFAULT_MAX_BATCH_SIZE,
            model_poll_ms: 15_000,
            memory_budget_mb: None,
            model_public_key: None,
            shared_memory: SharedMemory::Auto,
            io_threads: IoThreads::Shared,
            strict_readiness: true,
            settings_control: SettingsControl::Auto,
            trace: TraceSpec::default(),
            otlp: OtlpSpec::default(),
            body_bytes_max: 64 << 20,
            upload_bytes_max: 512 << 20,
            // openai-python's own default is ten minutes.
            request_timeout_ms: 600_000,
            queue_max: 1024,
            rate_limit: RateLimit::Off,
            rate_limit_resources: BTreeMap::new(),
            response_cache_mb: 0,
            recent_requests_max: 1000,
            drain_timeout_ms: 30_000,
            drain_delay_ms: 0,
            // As long as a large model may take.
            upgrade_timeout_ms: 600_000,
            register: None,
            region: None,
            // Eight million beginnings of prompts.
            prefix_index_mb: 64,
            data_dir: None,
            jobs: JobsSpec::default(),
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

/// How connections and threads find each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IoThreads {
    /// Any thread does what there is to do.
    #[default]
    Shared,
    /// A connection stays on one core, with upstream connections of that core's own: no event wakes another core, and no
    /// core helps another. One of HTTP/2, which carries many requests at a time, is left to all threads.
    PerCore,
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

pub(super) fn check(spec: &NodeSpec, found: &mut Findings) {
    let ports = [
        ("spec.admin", Some(spec.admin)),
        ("spec.grpcAlias", spec.grpc_alias.address()),
        ("spec.metricsAlias", spec.metrics_alias.address()),
    ];
    let mut taken = vec![spec.listen];
    for (path, address) in ports {
        let Some(address) = address else { continue };
        // Port 0 is a fresh one each time.
        let free = address.port() == 0 || !taken.contains(&address);
        found.check(free, path, || {
            format!("`{address}` is taken by an address above")
        });
        taken.push(address);
    }
    found.check(spec.upload_bytes_max > 0, "spec.uploadBytesMax", || {
        "must be at least 1".to_owned()
    });
    found.check(spec.body_bytes_max > 0, "spec.bodyBytesMax", || {
        "must be at least 1".to_owned()
    });
    found.check(spec.queue_max > 0, "spec.queueMax", || {
        "must be at least 1".to_owned()
    });
    found.positive(spec.request_timeout_ms, "spec.requestTimeoutMs");
    found.positive(spec.trace.rate.into(), "spec.trace.rate");
    found.check(spec.trace.count >= -1, "spec.trace.count", || {
        "must be -1, which is no end, or more".to_owned()
    });
    found.positive(spec.prefix_index_mb.into(), "spec.prefixIndexMb");
    let region = spec.region.as_deref();
    found.check(region.is_none_or(is_name), "spec.region", || {
        "a region is of a-z, 0-9, `-` and `.`, and begins and ends with a letter or digit"
            .to_owned()
    });
    let traced = !spec.trace.timestamps || spec.trace.file.is_some();
    found.check(traced, "spec.trace.file", || {
        "`timestamps` needs a file to write them to".to_owned()
    });
    otlp::check(&spec.otlp, found);
    found.positive(spec.model_poll_ms, "spec.modelPollMs");
    found.positive(spec.upgrade_timeout_ms, "spec.upgradeTimeoutMs");
    jobs::check(&spec.jobs, found);
    if let Some(register) = &spec.register {
        discovery::check_register(register, found);
    }
    if let Some(budget) = spec.memory_budget_mb {
        found.positive(budget, "spec.memoryBudgetMb");
    }
    let explicit = spec.model_control == ModelControl::Explicit;
    found.check(
        spec.load_models.is_empty() || explicit,
        "spec.loadModels",
        || "only `modelControl: explicit` chooses what is loaded at start".to_owned(),
    );
    let key = spec.model_public_key.as_deref();
    found.check(
        key.is_none_or(crate::sidecar::is_public_key),
        "spec.modelPublicKey",
        || "a minisign public key: 56 characters of base64 that begin with `RW`".to_owned(),
    );
}
