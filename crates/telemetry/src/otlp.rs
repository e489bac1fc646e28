//! Requests and metrics in OpenTelemetry's words.
//!
//! Pure: a record becomes spans, a page of metrics becomes points. Names and attributes are those of the semantic
//! conventions for generative AI (<https://github.com/open-telemetry/semantic-conventions-genai>) and for HTTP; what they
//! have no word for begins with `kapok.`.

mod page;
mod points;
mod request;

use std::time::{Duration, SystemTime};

use protocol::otlp::{
    ExportMetrics, ExportTraces, KeyValue, Resource, ResourceMetrics, ResourceSpans, Scope,
    ScopeMetrics, ScopeSpans,
};
use protocol::resource::OtlpSpec;

pub use points::metrics;
pub use request::spans;

use crate::Record;

/// The conventions that the names are of.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Who says it: this process, in words of its configuration.
#[derive(Debug, Clone)]
pub struct Source {
    resource: Resource,
    scope: Scope,
    started: SystemTime,
}

impl Source {
    /// `instance` tells it from others of the same name.
    pub fn new(spec: &OtlpSpec, version: &str, (instance, started): (&str, SystemTime)) -> Self {
        let mut attributes = vec![
            KeyValue::new("service.name", spec.service_name.as_str()),
            KeyValue::new("service.version", version),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("telemetry.sdk.name", "kapok"),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("telemetry.sdk.version", version),
        ];
        // What the configuration says counts.
        attributes.retain(|pair| !spec.attributes.contains_key(&pair.key));
        let said = spec.attributes.iter();
        attributes.extend(said.map(|(name, value)| KeyValue::new(name.as_str(), value.as_str())));
        Self {
            resource: Resource { attributes },
            scope: Scope {
                name: "kapok".to_owned(),
                version: version.to_owned(),
            },
            started,
        }
    }

    pub fn traces<'r>(&self, records: impl Iterator<Item = &'r Record>) -> ExportTraces {
        ExportTraces {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(self.scope.clone()),
                    spans: records.flat_map(spans).collect(),
                }],
                schema_url: SCHEMA.to_owned(),
            }],
        }
    }

    /// Of a page in Prometheus' text form, as it was at `now`.
    pub fn metrics(&self, page: &str, now: SystemTime) -> ExportMetrics {
        ExportMetrics {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(self.scope.clone()),
                    metrics: metrics(page, (nanos(self.started), nanos(now))),
                }],
                schema_url: SCHEMA.to_owned(),
            }],
        }
    }
}

/// How many points an export has.
pub fn points(export: &ExportMetrics) -> u64 {
    let scopes = export
        .resource_metrics
        .iter()
        .flat_map(|each| &each.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    metrics.map(|metric| points::points(metric) as u64).sum()
}

/// Since 1970.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, as_nanos)
}

fn as_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
