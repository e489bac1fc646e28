use std::sync::Arc;

use policy::{Used, What};
use protocol::resource::Priority;
use telemetry::metrics::{
    Counter, EncodeLabelSet, Family, Gauge, Histogram, Registry, latency_histogram,
};

use crate::admission::{Account, Turned};

/// What admission counts.
#[derive(Debug)]
pub(crate) struct AdmissionMetrics {
    limited: Family<LimitLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    depth: Family<ClassLabels, Gauge>,
    seconds: Family<ClassLabels, Histogram, fn() -> Histogram>,
    shed: Family<ShedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    of: &'static str,
    name: Arc<str>,
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    of: &'static str,
    name: Arc<str>,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShedLabels {
    class: &'static str,
    reason: &'static str,
}

impl AdmissionMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let families = Self {
            limited: Family::default(),
            tokens: Family::default(),
            depth: Family::default(),
            seconds: Family::new_with_constructor(latency_histogram),
            shed: Family::default(),
        };
        registry.register(
            "kapok_gateway_limited_total",
            "Requests refused because a limit of a key or a route was reached",
            families.limited.clone(),
        );
        registry.register(
            "kapok_gateway_tokens_total",
            "Tokens charged to keys and routes whose tokens are limited",
            families.tokens.clone(),
        );
        registry.register(
            "kapok_gateway_queue_depth",
            "Requests waiting for a place in a route or an upstream",
            families.depth.clone(),
        );
        registry.register(
            "kapok_gateway_queue_seconds",
            "Time of one request in line, whether it got a place or not",
            families.seconds.clone(),
        );
        registry.register(
            "kapok_gateway_shed_total",
            "Requests that waited in vain, or were told not to wait",
            families.shed.clone(),
        );
        families
    }

    pub(crate) fn limited(&self, account: &Account, what: What) {
        let limit = match what {
            What::Requests => "requests",
            What::Tokens => "tokens",
            What::InFlight => "in_flight",
        };
        let labels = LimitLabels {
            of: account.of.name(),
            name: Arc::clone(&account.name),
            limit,
        };
        self.limited.get_or_create_owned(&labels).inc();
    }

    pub(crate) fn used(&self, account: &Account, used: Used) {
        for (kind, tokens) in [("prompt", used.prompt), ("output", used.output)] {
            let labels = TokenLabels {
                of: account.of.name(),
                name: Arc::clone(&account.name),
                kind,
            };
            self.tokens.get_or_create_owned(&labels).add(tokens);
        }
    }

    /// Somebody stands in line until this is dropped.
    pub(crate) fn in_line(&self, class: Priority) -> InLine {
        let labels = ClassLabels {
            class: class.name(),
        };
        let depth = self.depth.get_or_create_owned(&labels);
        depth.inc();
        InLine(depth)
    }

    pub(crate) fn waited(&self, class: Priority, seconds: f64) {
        let labels = ClassLabels {
            class: class.name(),
        };
        self.seconds.get_or_create_owned(&labels).observe(seconds);
    }

    pub(crate) fn shed(&self, class: Priority, turned: Turned) {
        let labels = ShedLabels {
            class: class.name(),
            reason: turned.name(),
        };
        self.shed.get_or_create_owned(&labels).inc();
    }
}

#[derive(Debug)]
pub(crate) struct InLine(Gauge);

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.dec();
    }
}
