//! What the runtime counts: Triton's names, so that its dashboards work unchanged, and ours.

mod lifecycle;
mod series;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::oip::proto::ModelConfig;
use telemetry::metrics::{Counter, Family, Gauge, Histogram, LATENCY_BUCKETS, Registry};

pub(crate) use lifecycle::{LifecycleMetrics, SwapOutcome};
use series::{Asked, Histograms, Labels, Published, with_reason};

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
    first_response: Histograms,
    infer_seconds: Histograms,
    queue_seconds: Histograms,
    batch_rows: Histograms,
    cache: [Family<Labels, Counter>; CACHE.len()],
    lanes: Family<Labels, Gauge>,
    published: Arc<Mutex<ByVersion>>,
    pub(crate) lifecycle: LifecycleMetrics,
}

/// By model and version.
type ByVersion = HashMap<(String, String), Published>;

/// Powers of two up to more than anybody batches on one machine.
const BATCH_ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Triton's, in milliseconds.
const FIRST_RESPONSE_MS: [f64; 4] = [100.0, 500.0, 2000.0, 5000.0];

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
            first_response: Histograms::register(
                registry,
                (
                    "nv_inference_first_response_histogram_ms",
                    "Time from a decoupled model's request to its first answer, milliseconds",
                ),
                &FIRST_RESPONSE_MS,
            ),
            infer_seconds: Histograms::register(
                registry,
                (
                    "kapok_runtime_infer_seconds",
                    "Time of one call in the engine",
                ),
                &LATENCY_BUCKETS,
            ),
            queue_seconds: Histograms::register(
                registry,
                (
                    "kapok_runtime_queue_seconds",
                    "Time of one call waiting for a lane and a thread",
                ),
                &LATENCY_BUCKETS,
            ),
            batch_rows: Histograms::register(
                registry,
                ("kapok_runtime_batch_rows", "Rows of one call in the engine"),
                &BATCH_ROWS,
            ),
            cache: Default::default(),
            lanes: Family::default(),
            published: Arc::default(),
            lifecycle: LifecycleMetrics::register(registry),
        };
        metrics.register_triton(registry);
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
        let key = (model.to_owned(), version.to_owned());
        let published = self.published.lock().remove(&key);
        for labels in published.unwrap_or_default().labels {
            self.remove(&labels);
        }
    }

    fn remove(&self, labels: &Labels) {
        for failure in Failure::ALL {
            self.failure.remove(&with_reason(labels, failure));
        }
        let counters = [&self.success, &self.inferences, &self.executions];
        for family in counters
            .into_iter()
            .chain(&self.durations)
            .chain(&self.cache)
        {
            family.remove(labels);
        }
        self.pending.remove(labels);
        self.lanes.remove(labels);
        for histograms in self.histograms() {
            histograms.remove(labels);
        }
    }

    fn histograms(&self) -> [&Histograms; 4] {
        [
            &self.first_response,
            &self.infer_seconds,
            &self.queue_seconds,
            &self.batch_rows,
        ]
    }

    /// Buckets for what has none are a slip, but no reason not to serve.
    fn tell_unknown(&self, model: &str, asked: &series::Asked) {
        let known = self.histograms().map(Histograms::name);
        for family in asked
            .keys()
            .filter(|asked| !known.contains(&asked.as_str()))
        {
            tracing::warn!(
                model,
                "Metric family '{family}' in 'metric_identifier' is not a customizable metric in Triton core. Those with buckets are {}",
                known.join(", ")
            );
        }
    }

    /// Resolves a model's handles, once.
    pub(crate) fn model(&self, model: &str, version: &str, config: &ModelConfig) -> ModelMetrics {
        let (labels, asked) = (
            series::labels(model, version, config),
            series::asked(config),
        );
        self.tell_unknown(model, &asked);
        let mut published = self.published.lock();
        let own = published
            .entry((model.to_owned(), version.to_owned()))
            .or_default();
        let known = !own.labels.insert(labels.clone());
        if known && own.asked != asked {
            // Other buckets: what was counted in the old ones cannot be told in them.
            for histograms in self.histograms() {
                histograms.remove(&labels);
            }
        }
        own.asked.clone_from(&asked);
        let first_response = FirstResponse {
            family: self.first_response.clone(),
            published: Arc::clone(&self.published),
            series: (labels.clone(), asked.clone()),
            made: Arc::default(),
        };
        let decoupled = config.model_transaction_policy.as_ref();
        if decoupled.is_some_and(|policy| policy.decoupled) {
            first_response
                .made
                .get_or_init(|| self.first_response.of(&labels, &asked));
        }
        let failed = |failure: Failure| {
            let labels = with_reason(&labels, failure);
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
            first_response,
            infer_seconds: self.infer_seconds.of(&labels, &asked),
            queue_seconds: self.queue_seconds.of(&labels, &asked),
            batch_rows: self.batch_rows.of(&labels, &asked),
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
    pub(crate) first_response: FirstResponse,
    infer_seconds: Histogram,
    queue_seconds: Histogram,
    pub(crate) batch_rows: Histogram,
    pub(crate) cache_hits: Timed,
    pub(crate) cache_misses: Timed,
    pub(crate) lanes: Gauge,
}

/// Published with a decoupled model; with the first answer of an ensemble, whose members make it decoupled while it serves.
#[derive(Debug, Clone)]
pub(crate) struct FirstResponse {
    family: Histograms,
    published: Arc<Mutex<ByVersion>>,
    series: (Labels, Asked),
    made: Arc<OnceLock<Histogram>>,
}

impl FirstResponse {
    pub(crate) fn observe(&self, time: Duration) {
        let histogram = self.made.get_or_init(|| {
            let published = self.published.lock();
            let (labels, asked) = &self.series;
            let known = published.values().any(|own| own.labels.contains(labels));
            let histogram = self.family.of(labels, asked);
            if !known {
                // The model is gone, and its last stream ends.
                self.family.remove(labels);
            }
            histogram
        });
        histogram.observe(time.as_secs_f64() * 1e3);
    }
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
