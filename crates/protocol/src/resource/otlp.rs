use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::upstream::check_url;
use super::validate::Findings;

/// Where spans and metrics are sent, in OpenTelemetry's protocol. OpenTelemetry's own environment variables
/// (`OTEL_EXPORTER_OTLP_ENDPOINT` and its like) say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OtlpSpec {
    /// The collector's url; over HTTP `/v1/traces` and `/v1/metrics` are added to it. Without one nothing is sent.
    pub endpoint: Option<String>,
    pub protocol: OtlpProtocol,
    /// Sent with every export, for collectors that want a key.
    pub headers: BTreeMap<String, Secret>,
    /// Whether spans are sent.
    pub traces: bool,
    /// The share of the traces beginning here that are recorded, from 0 to 1.
    pub sample: Share,
    /// Whether a caller's trace is recorded if and only if the caller records it. Otherwise `sample` decides of those too.
    pub follow_parent: bool,
    /// Spans that wait to be sent; one more is dropped and counted.
    pub queue_max: usize,
    /// Whether metrics are sent.
    pub metrics: bool,
    /// How often metrics are sent.
    pub interval_seconds: u64,
    /// For one attempt to send.
    pub timeout_ms: u64,
    /// `service.name`.
    pub service_name: String,
    /// What else is said of this process, such as `deployment.environment.name`.
    pub attributes: BTreeMap<String, String>,
}

impl Default for OtlpSpec {
    /// As OpenTelemetry's SDKs have it, but for the queue, which a gateway fills faster.
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::default(),
            headers: BTreeMap::new(),
            traces: true,
            sample: Share(1.0),
            follow_parent: true,
            queue_max: 4096,
            metrics: true,
            interval_seconds: 60,
            timeout_ms: 10_000,
            service_name: "kapok".to_owned(),
            attributes: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    #[default]
    #[serde(rename = "http/protobuf")]
    Http,
    #[serde(rename = "grpc")]
    Grpc,
}

/// A part of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub f64);

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// By its bits, so that even what validation refuses equals itself.
impl Eq for Share {}

/// Spans are small, and a queue of this many takes some hundred megabytes.
const QUEUE_MAX: usize = 100_000;

pub(super) fn check(spec: &OtlpSpec, found: &mut Findings) {
    if let Some(Err(message)) = spec.endpoint.as_deref().map(check_url) {
        found.check(false, "spec.otlp.endpoint", || message.to_owned());
    }
    let share = spec.sample.0;
    found.check((0.0..=1.0).contains(&share), "spec.otlp.sample", || {
        "a share from 0 to 1".to_owned()
    });
    found.check(
        (1..=QUEUE_MAX).contains(&spec.queue_max),
        "spec.otlp.queueMax",
        || format!("must be 1 to {QUEUE_MAX}"),
    );
    found.positive(spec.interval_seconds, "spec.otlp.intervalSeconds");
    found.positive(spec.timeout_ms, "spec.otlp.timeoutMs");
    for (name, secret) in &spec.headers {
        let path = format!("spec.otlp.headers.{name}");
        found.check(HeaderName::try_from(name).is_ok(), &path, || {
            "this is no name of a header".to_owned()
        });
        if let Secret::Value(value) = secret {
            found.check(HeaderValue::try_from(value).is_ok(), &path, || {
                "a header cannot hold this".to_owned()
            });
        }
    }
}
