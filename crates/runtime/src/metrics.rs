//! What the runtime counts: Triton's names, so that its dashboards work unchanged, and ours.

mod lifecycle;

use std::time::Duration;

use telemetry::metrics::{Counter, Family, Gauge, Histogram, Registry, latency_histogram};

pub(crate) use lifecycle::{LifecycleMetrics, SwapOutcome};

/// Keys are from closed sets, values are names from the repository.
type Labels = Vec<(&'static str, String)>;

/// Why a request failed, in Triton's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No place in the queue, or its deadline passed there.
    Rejected,
    /// The caller went away.
    Canceled,
    /// The engine said so.
    Backend,
    /// The request did not fit the model, or could not be prepared.
    Other,
}

impl Failure {
    const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    fn name(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

/// All families; one per node.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    success: Family<Labels, Counter>,
    failure: Family<Labels, Counter>,
    inferences: Family<Labels, Counter>,
    executions: Family<Labels, Counter>,
    durations: [Family<Labels, Counter>; 5],
    pending: Family<Labels, Gauge>,
    infer_seconds: Family<Labels, Histogram>,
    queue_seconds: Family<Labels, Histogram>,
    batch_rows: Family<Labels, Histogram>,
    cache: [Family<Labels, Counter>; CACHE.len()],
    lanes: Family<Labels, Gauge>,
    pub(crate) lifecycle: LifecycleMetrics,
}

/// Powers of two up to more than anybody batches on one machine.
const BATCH_ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Hits and misses: how many, and how long.
const CACHE: [(&str, &str); 4] = [
    (
        "nv_cache_num_hits_per_model",
        "Requests that were answered from the response cache",
    ),
    (
        "nv_cache_hit_duration_per_model",
        "Cumulative time finding answers in the response cache, microseconds",
    ),
    (
        "nv_cache_num_misses_per_model",
        "Requests that the response cache had no answer for",
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Cumulative time of lookups in vain and of keeping the answers, microseconds",
    ),
];

const DURATIONS: [(&str, &str); 5] = [
    (
        "nv_inference_request_duration_us",
        "Cumulative time of successful requests, microseconds",
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative time requests waited for a lane, microseconds",
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative time preparing inputs, microseconds",
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative time in the engine, microseconds",
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative time preparing outputs, microseconds",
    ),
];

impl Metrics {
    pub(crate) fn register(registry: &Registry, cores: usize) -> Self {
        let metrics = Self {
            success: Family::default(),
            failure: Family::default(),
            inferences: Family::default(),
            executions: Family::default(),
            durations: Default::default(),
            pending: Family::default(),
            infer_seconds: Family::new_with_constructor(latency_histogram),
            queue_seconds: Family::new_with_constructor(latency_histogram),
            batch_rows: Family::new_with_constructor(|| Histogram::new(BATCH_ROWS)),
            cache: Default::default(),
            lanes: Family::default(),
            lifecycle: LifecycleMetrics::register(registry),
        };
        metrics.register_triton(registry);
        registry.register(
            "kapok_runtime_infer_seconds",
            "Time of one call in the engine",
            metrics.infer_seconds.clone(),
        );
        registry.register(
            "kapok_runtime_queue_seconds",
            "Time of one call waiting for a lane and a thread",
            metrics.queue_seconds.clone(),
        );
        registry.register(
            "kapok_runtime_batch_rows",
            "Rows of one call in the engine",
            metrics.batch_rows.clone(),
        );
        // One gauge under both names: what waits is what Triton calls pending.
        registry.register(
            "kapok_runtime_queue_depth",
            "Calls waiting for a lane",
            metrics.pending.clone(),
        );
        registry.register(
            "kapok_runtime_lanes",
            "Calls of a model that can run at the same time",
            metrics.lanes.clone(),
        );
        let threads: Gauge = Gauge::default();
        threads.set(i64::try_from(cores).unwrap_or(i64::MAX));
        registry.register(
            "kapok_runtime_compute_threads",
            "Threads that run engines, whatever is loaded",
            threads,
        );
        metrics
    }

    fn register_triton(&self, registry: &Registry) {
        let counters = [
            (
                "nv_inference_request_success",
                "Successful inference requests",
                &self.success,
            ),
            (
                "nv_inference_request_failure",
                "Failed inference requests by reason",
                &self.failure,
            ),
            (
                "nv_inference_count",
                "Inferences performed, a batch of n counting n",
                &self.inferences,
            ),
            (
                "nv_inference_exec_count",
                "Runs of the engine, a batch counting one",
                &self.executions,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        for ((name, help), family) in CACHE.iter().zip(&self.cache) {
            registry.register(name, help, family.clone());
        }
        for ((name, help), family) in DURATIONS.iter().zip(&self.durations) {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "nv_inference_pending_request_count",
            "Requests waiting for execution",
            self.pending.clone(),
        );
    }

    /// Drops a version's series: it is not in memory any more.
    pub(crate) fn forget(&self, model: &str, version: &str) {
        let labels: Labels = vec![("model", model.to_owned()), ("version", version.to_owned())];
        for failure in Failure::ALL {
            let mut labels = labels.clone();
            labels.push(("reason", failure.name().to_owned()));
            self.failure.remove(&labels);
        }
        let counters = [&self.success, &self.inferences, &self.executions];
        for family in counters
            .into_iter()
            .chain(&self.durations)
            .chain(&self.cache)
        {
            family.remove(&labels);
        }
        self.pending.remove(&labels);
        self.lanes.remove(&labels);
        self.infer_seconds.remove(&labels);
        self.queue_seconds.remove(&labels);
        self.batch_rows.remove(&labels);
    }

    /// Resolves a model's handles, once.
    pub(crate) fn model(&self, model: &str, version: &str) -> ModelMetrics {
        let labels: Labels = vec![("model", model.to_owned()), ("version", version.to_owned())];
        let failed = |failure: Failure| {
            let mut labels = labels.clone();
            labels.push(("reason", failure.name().to_owned()));
            self.failure.get_or_create_owned(&labels)
        };
        let cache = |index: usize| self.cache[index].get_or_create_owned(&labels);
        ModelMetrics {
            cache_hits: Timed(cache(0), cache(1)),
            cache_misses: Timed(cache(2), cache(3)),
            success: self.success.get_or_create_owned(&labels),
            failures: Failure::ALL.map(failed),
            inferences: self.inferences.get_or_create_owned(&labels),
            executions: self.executions.get_or_create_owned(&labels),
            durations: std::array::from_fn(|index| {
                self.durations[index].get_or_create_owned(&labels)
            }),
            pending: self.pending.get_or_create_owned(&labels),
            infer_seconds: self.infer_seconds.get_or_create_owned(&labels),
            queue_seconds: self.queue_seconds.get_or_create_owned(&labels),
            batch_rows: self.batch_rows.get_or_create_owned(&labels),
            lanes: self.lanes.get_or_create_owned(&labels),
        }
    }
}

/// One model version's handles.
#[derive(Debug, Clone)]
pub(crate) struct ModelMetrics {
    pub(crate) success: Counter,
    failures: [Counter; Failure::ALL.len()],
    pub(crate) inferences: Counter,
    pub(crate) executions: Counter,
    durations: [Counter; DURATIONS.len()],
    pub(crate) pending: Gauge,
    infer_seconds: Histogram,
    queue_seconds: Histogram,
    pub(crate) batch_rows: Histogram,
    pub(crate) cache_hits: Timed,
    pub(crate) cache_misses: Timed,
    pub(crate) lanes: Gauge,
}

/// How often, and how many microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Timed(Counter, Counter);

impl Timed {
    pub(crate) fn count(&self, time: Duration) {
        self.0.inc();
        self.1.add(micros(time));
    }
}

/// Rounded, not cut: many calls take less than a microsecond here.
fn micros(time: Duration) -> u64 {
    u64::try_from((time.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)
}

impl ModelMetrics {
    pub(crate) fn failure(&self, failure: Failure) -> &Counter {
        &self.failures[failure as usize]
    }

    /// Adds the whole time of a request that no engine ran for.
    pub(crate) fn answered(&self, total: Duration) {
        self.durations[0].add(micros(total));
    }

    /// Adds one request's times: the whole, then queue, input, infer, output.
    pub(crate) fn observe(&self, times: [Duration; DURATIONS.len()]) {
        for (counter, time) in self.durations.iter().zip(times) {
            counter.add(micros(time));
        }
        let [_, queue, _, infer, _] = times;
        self.queue_seconds.observe(queue.as_secs_f64());
        self.infer_seconds.observe(infer.as_secs_f64());
    }
}
