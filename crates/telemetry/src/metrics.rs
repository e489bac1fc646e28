//! The metric registry: prometheus-client behind two small additions, names as written and one set of buckets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Metric;

pub use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
pub use prometheus_client::metrics::family::{Family, MetricConstructor};
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// What `/metrics` is served as: Prometheus text, because Triton's counter names are not valid OpenMetrics.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one node. Cheap to clone; rooms register at start and keep their handles.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    registry: prometheus_client::registry::Registry,
    names: Vec<(String, String)>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes a metric under exactly this name; counters write their `_total` themselves.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let mut inner = self.0.lock();
        inner.registry.register(name, help, metric);
        inner.names.push((name.to_owned(), help.to_owned()));
    }

    /// The whole registry in Prometheus' text form.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        let inner = self.0.lock();
        // Writing to a String cannot fail.
        let _infallible =
            prometheus_client::encoding::text::encode_registry(&mut text, &inner.registry);
        text
    }

    /// Every registered name with its help, in order of registration: what docs/metrics.md lists.
    pub fn names(&self) -> Vec<(String, String)> {
        self.0.lock().names.clone()
    }
}

/// A counter whose name is written as registered. prometheus-client's own appends `_total`, which would rename Triton's
/// `nv_inference_count`.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        // A gauge's encoding is the bare name and value; the type above is what `# TYPE` says.
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Seconds from 50 µs to 100 s in 1-2-5 steps: a quantile read off a bucket is within a factor of 2.5, at 20 buckets a
/// series.
pub const LATENCY_BUCKETS: [f64; 20] = [
    5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    20.0, 50.0, 100.0,
];

/// A histogram of seconds.
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Labels {
        model: String,
    }

    #[test]
    fn names_are_written_as_registered() {
        let registry = Registry::new();
        let counts: Family<Labels, Counter> = Family::default();
        registry.register("nv_inference_count", "Inferences performed", counts.clone());
        let seconds = latency_histogram();
        registry.register(
            "kapok_runtime_infer_seconds",
            "Time in the engine",
            seconds.clone(),
        );
        counts
            .get_or_create_owned(&Labels {
                model: "a\"b".into(),
            })
            .add(3);
        seconds.observe(0.002);
        let text = registry.encode();
        for line in [
            "# TYPE nv_inference_count counter",
            "nv_inference_count{model=\"a\\\"b\"} 3",
            "# TYPE kapok_runtime_infer_seconds histogram",
            "kapok_runtime_infer_seconds_bucket{le=\"0.002\"} 1",
            "kapok_runtime_infer_seconds_count 1",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in:\n{text}"
            );
        }
        assert_eq!(registry.names().len(), 2);
    }
}
