use telemetry::metrics::{Counter, Family, Gauge, Registry};

type Labels = [(&'static str, &'static str); 1];

/// What became of an attempt to replace what serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapOutcome {
    Swapped,
    /// What served before still does.
    Refused,
    /// It served, and what served before does again.
    RolledBack,
}

/// Counts loads, swaps and evictions; one per node.
#[derive(Debug, Clone, Default)]
pub(crate) struct LifecycleMetrics {
    swaps: Family<Labels, Counter>,
    loads: Family<Labels, Counter>,
    pub(crate) evictions: Counter,
    resident: Gauge,
}

impl LifecycleMetrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "kapok_model_swaps_total",
            "Attempts to replace a serving model: swapped, refused, rolled_back",
            metrics.swaps.clone(),
        );
        registry.register(
            "kapok_model_loads_total",
            "Loads of a model version: loaded, failed",
            metrics.loads.clone(),
        );
        registry.register(
            "kapok_model_evictions_total",
            "Models that left memory to make room, or because nobody asked for them",
            metrics.evictions.clone(),
        );
        registry.register(
            "kapok_model_resident_bytes",
            "Memory of the models in memory, as measured when they were loaded",
            metrics.resident.clone(),
        );
        metrics
    }

    pub(crate) fn swapped(&self, outcome: SwapOutcome) {
        let outcome = match outcome {
            SwapOutcome::Swapped => "swapped",
            SwapOutcome::Refused => "refused",
            SwapOutcome::RolledBack => "rolled_back",
        };
        self.swaps
            .get_or_create_owned(&[("outcome", outcome)])
            .inc();
    }

    pub(crate) fn loaded(&self, well: bool) {
        let outcome = if well { "loaded" } else { "failed" };
        self.loads
            .get_or_create_owned(&[("outcome", outcome)])
            .inc();
    }

    pub(crate) fn resident(&self, bytes: u64) {
        self.resident.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
