use std::time::Duration;

use protocol::resource::{
    JobControl, ModelControl, NodeSpec, OtlpSpec, SettingsControl, SharedMemory,
};

/// The gateway's bounds. Everything a client can make us hold or wait for has one.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest request body, one tensor or many.
    pub body_bytes_max: usize,
    /// Largest body that is passed on as it arrives and never held.
    pub upload_bytes_max: usize,
    /// For a request that names no deadline of its own.
    pub request_timeout: Duration,
    /// How long a connection may be open without a request: before the first head is complete, and from an answer to the
    /// next complete head. nginx waits 60 s for a head and 75 s between requests.
    pub head_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it; then its connection is cut. nginx's
    /// `send_timeout` is 60 s too.
    pub send_timeout: Duration,
    /// Request bodies in memory at a time, all together; a request beyond that is refused with 503.
    pub body_bytes_total_max: usize,
    /// Connections open at a time, per listener; one more waits in the kernel's backlog.
    pub connections_max: usize,
    /// h2 streams at a time on one connection. gRPC clients share one connection among all their calls.
    pub streams_max: u32,
    /// Whether clients may load and unload models.
    pub model_control: ModelControl,
    /// Whether readiness waits for the models of this process.
    pub strict_readiness: bool,
    /// Whether clients may change trace and log settings.
    pub settings_control: SettingsControl,
    /// Whether clients may submit jobs.
    pub job_control: JobControl,
    /// Whether clients may register shared memory.
    pub shared_memory: SharedMemory,
    /// Where spans and metrics are sent.
    pub otlp: OtlpSpec,
    /// Whether nobody but this machine reaches the public port and its alias.
    pub loopback: bool,
    /// Whether nobody but this machine reaches the admin port.
    pub admin_loopback: bool,
}

/// For all request bodies: a quarter of a small machine. A node that allows large bodies has room for eight.
const BODY_BYTES_TOTAL: usize = 1 << 30;

impl Default for Config {
    fn default() -> Self {
        Self::from(&NodeSpec::default())
    }
}

impl From<&NodeSpec> for Config {
    fn from(node: &NodeSpec) -> Self {
        Self {
            body_bytes_max: node.body_bytes_max,
            upload_bytes_max: node.upload_bytes_max,
            request_timeout: Duration::from_millis(node.request_timeout_ms),
            head_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            body_bytes_total_max: BODY_BYTES_TOTAL.max(node.body_bytes_max.saturating_mul(8)),
            connections_max: 20_000,
            streams_max: 1024,
            model_control: node.model_control,
            strict_readiness: node.strict_readiness,
            settings_control: node.settings_control,
            job_control: node.jobs.control,
            shared_memory: node.shared_memory,
            otlp: node.otlp.clone(),
            loopback: node.listen.ip().is_loopback()
                && node
                    .grpc_alias
                    .address()
                    .is_none_or(|alias| alias.ip().is_loopback()),
            admin_loopback: node.admin.ip().is_loopback(),
        }
    }
}
