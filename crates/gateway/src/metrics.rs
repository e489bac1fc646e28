//! What the gateway counts. Labels are closed sets or configured names, and handles are kept, so that a request costs
//! no look-up by label.

mod admission;
mod gen_ai;
mod http;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use telemetry::metrics::{
    Counter, EncodeLabelSet, EncodeLabelValue, Family, Gauge, Histogram, Registry,
    latency_histogram,
};

pub(crate) use admission::AdmissionMetrics;
pub(crate) use gen_ai::{Call, GenAiMetrics, Task, Told, provider};
pub(crate) use http::HttpMetrics;

use crate::operation::Operation;

/// Every family of this room. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<CallLabels, Histogram, fn() -> Histogram>,
    first_byte: Family<CallLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    held: Gauge,
    upstream_errors: Family<ErrorLabels, Counter>,
    budget_spent: Counter,
    connections: Family<DoorLabels, Gauge>,
    targets: Mutex<HashMap<Arc<str>, Arc<TargetMetrics>>>,
    admission: AdmissionMetrics,
    gen_ai: GenAiMetrics,
    http: HttpMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    target: Arc<str>,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    target: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    upstream: Arc<str>,
    kind: UpstreamFault,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

/// How an upstream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum UpstreamFault {
    /// No connection, or not in time.
    #[expect(
        non_camel_case_types,
        reason = "the variant's name is the label's value"
    )]
    connect,
    /// The connection ended before the answer's head.
    #[expect(
        non_camel_case_types,
        reason = "the variant's name is the label's value"
    )]
    no_answer,
    /// The answer ended before its end.
    #[expect(
        non_camel_case_types,
        reason = "the variant's name is the label's value"
    )]
    cut,
    /// Silence for longer than allowed.
    #[expect(
        non_camel_case_types,
        reason = "the variant's name is the label's value"
    )]
    timeout,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let families = Families {
            requests: Family::default(),
            seconds: Family::new_with_constructor(latency_histogram),
            first_byte: Family::new_with_constructor(latency_histogram),
            in_flight: Gauge::default(),
            held: Gauge::default(),
            upstream_errors: Family::default(),
            budget_spent: Counter::default(),
            connections: Family::default(),
            targets: Mutex::default(),
            admission: AdmissionMetrics::register(registry),
            gen_ai: GenAiMetrics::register(registry),
            http: HttpMetrics::register(registry),
        };
        registry.register(
            "kapok_gateway_requests_total",
            "Requests answered or given up",
            families.requests.clone(),
        );
        registry.register(
            "kapok_gateway_request_seconds",
            "From a request's head to the end of its answer",
            families.seconds.clone(),
        );
        registry.register(
            "kapok_gateway_first_byte_seconds",
            "From a request's head to its answer's head",
            families.first_byte.clone(),
        );
        registry.register(
            "kapok_gateway_in_flight",
            "Requests whose answer has not ended",
            families.in_flight.clone(),
        );
        registry.register(
            "kapok_gateway_held",
            "Requests that wait for an upstream that is starting, loading or not discovered yet",
            families.held.clone(),
        );
        registry.register(
            "kapok_gateway_upstream_errors_total",
            "Failures of upstreams; answers with an error status are not among them",
            families.upstream_errors.clone(),
        );
        registry.register(
            "kapok_gateway_retries_refused_total",
            "Attempts that the retry budget did not allow",
            families.budget_spent.clone(),
        );
        registry.register(
            "kapok_gateway_connections",
            "Open client connections",
            families.connections.clone(),
        );
        Self(Arc::new(families))
    }

    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.0.in_flight
    }

    pub(crate) fn admission(&self) -> &AdmissionMetrics {
        &self.0.admission
    }

    pub(crate) fn gen_ai(&self) -> &GenAiMetrics {
        &self.0.gen_ai
    }

    pub(crate) fn http(&self) -> &HttpMetrics {
        &self.0.http
    }

    pub(crate) fn held(&self) -> &Gauge {
        &self.0.held
    }

    pub(crate) fn connections(&self, door: &'static str) -> Gauge {
        self.0.connections.get_or_create_owned(&DoorLabels { door })
    }

    pub(crate) fn budget_spent(&self) {
        self.0.budget_spent.inc();
    }

    pub(crate) fn upstream_error(&self, upstream: &Arc<str>, kind: UpstreamFault) {
        let labels = ErrorLabels {
            upstream: Arc::clone(upstream),
            kind,
        };
        self.0.upstream_errors.get_or_create_owned(&labels).inc();
    }

    /// The handles of one target; the same ones for the same name.
    pub(crate) fn target(&self, name: &str) -> Arc<TargetMetrics> {
        let mut targets = self.0.targets.lock();
        if let Some(known) = targets.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        let new = Arc::new(TargetMetrics {
            metrics: self.clone(),
            name: Arc::clone(&name),
            requests: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            seconds: std::array::from_fn(|_| OnceLock::new()),
            first_byte: std::array::from_fn(|_| OnceLock::new()),
        });
        targets.insert(name, Arc::clone(&new));
        new
    }
}

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The handles of one target, each made when first needed.
#[derive(Debug)]
pub(crate) struct TargetMetrics {
    metrics: Metrics,
    name: Arc<str>,
    requests: [[OnceLock<Counter>; CLASSES.len()]; Operation::COUNT],
    seconds: [OnceLock<Histogram>; Operation::COUNT],
    first_byte: [OnceLock<Histogram>; Operation::COUNT],
}

impl TargetMetrics {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn first_byte(&self, operation: Operation, seconds: f64) {
        self.first_byte[operation as usize]
            .get_or_init(|| {
                let labels = self.labels(operation);
                self.metrics.0.first_byte.get_or_create_owned(&labels)
            })
            .observe(seconds);
    }

    pub(crate) fn settled(&self, operation: Operation, status: u16, seconds: f64) {
        let class = usize::from(status / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        self.requests[operation as usize][class]
            .get_or_init(|| {
                let labels = RequestLabels {
                    operation: operation.name(),
                    target: Arc::clone(&self.name),
                    status: CLASSES[class],
                };
                self.metrics.0.requests.get_or_create_owned(&labels)
            })
            .inc();
        self.seconds[operation as usize]
            .get_or_init(|| {
                let labels = self.labels(operation);
                self.metrics.0.seconds.get_or_create_owned(&labels)
            })
            .observe(seconds);
    }

    fn labels(&self, operation: Operation) -> CallLabels {
        CallLabels {
            operation: operation.name(),
            target: Arc::clone(&self.name),
        }
    }
}
