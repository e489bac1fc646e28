use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::discovery::{self, DiscoverySpec};
use super::failure::{Continuation, HealthSpec, OutlierSpec, check_health, check_outlier};
use super::secret::{NamesOnly, Secret};
use super::validate::{Findings, is_name};

/// A server that kapok sends requests to, and perhaps starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Scheme, host, port and an optional path prefix; requests keep their own path behind it.
    pub url: String,
    #[serde(default)]
    pub kind: UpstreamKind,
    /// Which of the Open Inference Protocol's two forms `url` speaks; absent means what its kind usually does there:
    /// `triton` REST, `kapok` both.
    #[serde(default)]
    pub oip: Option<OipForm>,
    /// Where it speaks gRPC, if not at `url`: Triton's other port.
    #[serde(default)]
    pub grpc_url: Option<String>,
    /// Whether HTTP/2 is spoken to `url`: `true` from the first byte, `false` never, absent if TLS agrees on it. gRPC is
    /// HTTP/2 whatever this says.
    #[serde(default)]
    pub http2: Option<bool>,
    /// Requests that share one HTTP/2 connection at a time; one more opens another connection.
    #[serde(default = "default_http2_streams_max")]
    pub http2_streams_max: usize,
    /// How its load is read from its metrics page.
    #[serde(default)]
    pub load: LoadSpec,
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
    /// Idle connections kept; with `ioThreads: perCore`, which is the default without models, by each core.
    #[serde(default = "default_idle_connections_max")]
    pub idle_connections_max: usize,
    /// Requests at a time; the next ones wait in line. Absent means as many as come.
    #[serde(default)]
    pub max_in_flight: Option<u32>,
    /// A process that kapok starts, watches, restarts and stops.
    #[serde(default)]
    pub process: Option<ProcessSpec>,
    #[serde(default)]
    pub health: HealthSpec,
    #[serde(default)]
    pub outlier: OutlierSpec,
    #[serde(default)]
    pub continuation: Continuation,
    /// Where the servers of this upstream are learned from; it then is the pattern of a pool.
    #[serde(default)]
    pub discovery: Option<DiscoverySpec>,
    /// A Route may name the pool, and then any of its upstreams answers.
    #[serde(default)]
    pub pool: Option<String>,
    /// Where it stands. A node with a region prefers upstreams of the same one.
    #[serde(default)]
    pub region: Option<String>,
    /// Then it gets only requests of this colour.
    #[serde(default)]
    pub colour: Option<String>,
    /// What a token costs there, in any unit: only compared with the others'.
    #[serde(default = "default_cost")]
    pub cost: u32,
}

fn default_cost() -> u32 {
    1
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

/// nginx's, Envoy's and hyper's servers take 100 to 250 at once.
fn default_http2_streams_max() -> usize {
    100
}

/// What a server is, which says what it speaks and what its metrics are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// OpenAI's API, and Anthropic's messages where the server has them.
    #[default]
    OpenAi,
    Vllm,
    Sglang,
    /// Anthropic's messages alone; its key travels as `x-api-key`.
    Anthropic,
    /// The Open Inference Protocol: Triton, MLServer, KServe's servers.
    Triton,
    Kapok,
}

/// A form of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OipForm {
    Rest,
    Grpc,
    Both,
}

impl UpstreamSpec {
    /// A server of which nothing but its url is said.
    pub fn at(url: &str) -> Self {
        serde_json::from_value(serde_json::json!({ "url": url }))
            .expect("everything but the url has a default")
    }
}

/// Where an upstream tells its load, and how often it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadSpec {
    /// Its metrics page, in Prometheus' text format; absent means `/metrics` of `url` for `vllm`, `sglang` and `kapok`, and
    /// none for the others. Triton's is on a port of its own.
    pub url: Option<String>,
    /// Between two looks, more or less, so that many gateways do not ask at once; 0 never asks. What was told is believed
    /// for ten seconds.
    pub interval_ms: u64,
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            url: None,
            // Often enough to see a queue grow, seldom enough that 100 upstreams cost no core.
            interval_ms: 1_000,
        }
    }
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
            .field("env", &NamesOnly(env))
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

pub(super) fn check(spec: &UpstreamSpec, found: &mut Findings) {
    check_health(&spec.health, found);
    check_outlier(&spec.outlier, found);
    let urls = [
        ("spec.url", Some(&spec.url)),
        ("spec.grpcUrl", spec.grpc_url.as_ref()),
        ("spec.load.url", spec.load.url.as_ref()),
    ];
    for (path, url) in urls {
        if let Some(Err(message)) = url.map(|url| check_url(url)) {
            found.check(false, path, || message.to_owned());
        }
    }
    speaks(spec, found);
    for (index, model) in spec.models.iter().flatten().enumerate() {
        let exact = !model.is_empty() && !model.contains('*');
        found.check(exact, &format!("spec.models.{index}"), || {
            "a model of an upstream is an exact name; a `Route` takes prefixes".to_owned()
        });
    }
    if let Some(key) = &spec.api_key {
        secret(key, found);
    }
    found.positive(spec.connect_timeout_ms, "spec.connectTimeoutMs");
    found.positive(spec.idle_timeout_ms, "spec.idleTimeoutMs");
    if let Some(max) = spec.max_in_flight {
        found.positive(max.into(), "spec.maxInFlight");
    }
    if let Some(spec) = &spec.process {
        process(spec, found);
    }
    if let Some(discovery) = &spec.discovery {
        discovery::check(discovery, &spec.url, found);
        found.check(spec.process.is_none(), "spec.process", || {
            "servers that are discovered are started by others; do without `process` or `discovery`".to_owned()
        });
    }
    let names = [("spec.pool", &spec.pool), ("spec.region", &spec.region)];
    for (path, name) in names {
        let legal = name.as_deref().is_none_or(is_name);
        found.check(legal, path, || {
            "a name is of a-z, 0-9, `-` and `.`, and begins and ends with a letter or digit"
                .to_owned()
        });
    }
    found.check(spec.pool.as_deref() != Some("local"), "spec.pool", || {
        "`local` means the models in this process; take another name".to_owned()
    });
    let visible =
        |colour: &String| !colour.is_empty() && colour.bytes().all(|byte| byte.is_ascii_graphic());
    found.check(
        spec.colour.as_ref().is_none_or(visible),
        "spec.colour",
        || "a colour is visible ASCII without spaces, as a header can carry it".to_owned(),
    );
}

fn speaks(spec: &UpstreamSpec, found: &mut Findings) {
    let oip = matches!(spec.kind, UpstreamKind::Triton | UpstreamKind::Kapok);
    found.check(oip || spec.oip.is_none(), "spec.oip", || {
        "only the kinds `triton` and `kapok` speak the Open Inference Protocol".to_owned()
    });
    found.check(oip || spec.grpc_url.is_none(), "spec.grpcUrl", || {
        "only the kinds `triton` and `kapok` are spoken to over gRPC".to_owned()
    });
    let grpc_here = matches!(spec.oip, Some(OipForm::Grpc | OipForm::Both));
    found.check(
        !(grpc_here && spec.grpc_url.is_some()),
        "spec.grpcUrl",
        || "`oip` says that gRPC is at `url` already".to_owned(),
    );
    let streams = u64::try_from(spec.http2_streams_max).unwrap_or(u64::MAX);
    found.positive(streams, "spec.http2StreamsMax");
    let every = spec.load.interval_ms;
    found.check(
        every == 0 || (100..=5_000).contains(&every),
        "spec.load.intervalMs",
        || "0, or from 100 to 5000: what was told is believed for ten seconds".to_owned(),
    );
}

/// Scheme, host, port and path; the rest of a URL has no meaning here and would be lost.
pub(super) fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri = url
        .parse()
        .map_err(|_| "not a URL; write it as `http://host:port`")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("the URL must begin with `http://` or `https://`");
    }
    let authority = uri.authority().ok_or("the URL names no host")?;
    if authority.host().is_empty() {
        return Err("the URL names no host");
    }
    if authority.as_str().contains('@') {
        return Err("a URL with a password in it would be shown in logs; use `apiKey`");
    }
    let after_host = authority
        .as_str()
        .get(authority.host().len()..)
        .unwrap_or_default();
    if !after_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("the port must be a number from 1 to 65535");
    }
    if url.contains(['?', '#']) {
        return Err("the URL takes a path but neither query nor fragment");
    }
    Ok(())
}

fn secret(secret: &Secret, found: &mut Findings) {
    let (path, legal, message) = match secret {
        Secret::Env(name) => (
            "spec.apiKey.env",
            !name.is_empty() && !name.contains(['=', '\0']),
            "the name of an environment variable, without `$`",
        ),
        Secret::File(file) => (
            "spec.apiKey.file",
            !file.as_os_str().is_empty(),
            "the path of a file",
        ),
        Secret::Value(value) => (
            "spec.apiKey.value",
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()),
            "a key is visible ASCII without spaces",
        ),
    };
    let dollar = matches!(secret, Secret::Env(name) if name.starts_with('$'));
    found.check(legal && !dollar, path, || message.to_owned());
}

fn process(spec: &ProcessSpec, found: &mut Findings) {
    let program = spec.command.first();
    found.check(
        program.is_some_and(|program| !program.is_empty()),
        "spec.process.command",
        || "the program and its arguments, as a list".to_owned(),
    );
    for name in spec.env.keys() {
        let legal = !name.is_empty() && !name.contains(['=', '\0']);
        found.check(legal, "spec.process.env", || {
            format!(
                "`{}` is no name of an environment variable",
                name.escape_debug()
            )
        });
    }
    found.check(
        spec.ready_path.starts_with('/'),
        "spec.process.readyPath",
        || "a path begins with `/`".to_owned(),
    );
    found.positive(spec.start_timeout_ms, "spec.process.startTimeoutMs");
}
