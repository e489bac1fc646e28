use telemetry::metrics::{Family, Gauge, Registry};

/// What is told of jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    jobs: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "kapok_jobs",
            "Jobs by what they do: waiting for a place, placed, or finished and remembered",
            metrics.jobs.clone(),
        );
        metrics.show([0; 3]);
        metrics
    }

    /// Waiting, placed, finished.
    pub(crate) fn show(&self, counts: [usize; 3]) {
        for (state, count) in ["waiting", "placed", "finished"].into_iter().zip(counts) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let labels = [("state", state)];
            self.jobs.get_or_create_owned(&labels).set(count);
        }
    }
}
