//! What a model version has done so far, in Triton's statistics' shape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::Clock;
use parking_lot::Mutex;
use protocol::Timing;
use protocol::oip::proto::{
    InferBatchStatistics, InferResponseStatistics, InferStatistics, ModelStatistics,
    StatisticDuration,
};

use crate::error::Error;
use crate::metrics::{Failure, ModelMetrics};

/// Counts one model version's requests; shared by its calls.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) metrics: ModelMetrics,
    counters: Mutex<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    last_inference_ms: u64,
    inferences: u64,
    executions: u64,
    success: Sum,
    fail: Sum,
    queue: Sum,
    input: Sum,
    infer: Sum,
    output: Sum,
    cache_hit: Sum,
    cache_miss: Sum,
    /// By batch size: input, infer, output.
    batches: BTreeMap<u64, [Sum; 3]>,
    /// By an answer's index within its request, for decoupled models.
    responses: Vec<Response>,
}

/// Answers of one request beyond these are not booked one by one.
const RESPONSES_MAX: usize = 1024;

#[derive(Debug, Default, Clone, Copy)]
struct Response {
    infer: Sum,
    output: Sum,
    success: Sum,
    fail: Sum,
    empty: Sum,
    cancel: Sum,
}

/// How one answer of a decoupled call came out, with the time since it was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Answered {
        infer: Duration,
        output: Duration,
    },
    Failed(Duration),
    /// The call ended without a single answer.
    Empty(Duration),
    /// Nobody waited for it any more.
    Cancelled(Duration),
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u64,
    ns: u64,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.ns = self.ns.saturating_add(ns);
    }

    fn wire(self) -> Option<StatisticDuration> {
        Some(StatisticDuration {
            count: self.count,
            ns: self.ns,
        })
    }
}

impl Response {
    fn wire(&self) -> InferResponseStatistics {
        InferResponseStatistics {
            compute_infer: self.infer.wire(),
            compute_output: self.output.wire(),
            success: self.success.wire(),
            fail: self.fail.wire(),
            empty_response: self.empty.wire(),
            cancel: self.cancel.wire(),
        }
    }
}

/// One request being served. It counts as cancelled unless it is settled, so that a dropped future is counted, too.
#[derive(Debug)]
pub(crate) struct Attempt {
    statistics: Arc<Statistics>,
    clock: Clock,
    started: std::time::Instant,
    settled: bool,
}

impl Statistics {
    pub(crate) fn new(metrics: ModelMetrics) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            counters: Mutex::default(),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>, clock: &Clock) -> Attempt {
        Attempt {
            statistics: Arc::clone(self),
            clock: clock.clone(),
            started: clock.now(),
            settled: false,
        }
    }

    /// How many calls are in line now.
    pub(crate) fn waiting(&self, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics.pending.set(waiting);
    }

    /// Books one call of the engine for `batch` items; a request may need several.
    pub(crate) fn executed(&self, batch: usize, timing: &Timing, clock: &Clock) {
        self.metrics.executions.inc();
        let batch = u64::try_from(batch).unwrap_or(u64::MAX);
        self.metrics.inferences.add(batch);
        self.metrics.batch_rows.observe(batch as f64);
        let mut counters = self.counters.lock();
        counters.last_inference_ms = millis(clock.wall());
        counters.inferences += batch;
        counters.executions += 1;
        let sums = counters.batches.entry(batch).or_default();
        for (sum, time) in sums
            .iter_mut()
            .zip([timing.input, timing.infer, timing.output])
        {
            sum.add(time);
        }
    }

    /// Books what a lookup that found nothing, and keeping the answer, cost.
    pub(crate) fn missed(&self, time: Duration) {
        self.metrics.cache_misses.count(time);
        self.counters.lock().cache_miss.add(time);
    }

    /// Books how long a decoupled call took to its first answer.
    pub(crate) fn first_response(&self, time: Duration) {
        self.metrics.first_response.observe(time);
    }

    /// Books one answer of a decoupled call.
    pub(crate) fn responded(&self, index: usize, ending: Ending) {
        if index >= RESPONSES_MAX {
            return;
        }
        let mut counters = self.counters.lock();
        if counters.responses.len() <= index {
            counters.responses.resize(index + 1, Response::default());
        }
        let response = &mut counters.responses[index];
        match ending {
            Ending::Answered { infer, output } => {
                response.infer.add(infer);
                response.output.add(output);
                response.success.add(infer + output);
            }
            Ending::Failed(time) => {
                response.infer.add(time);
                response.fail.add(time);
            }
            Ending::Empty(time) => {
                response.infer.add(time);
                response.empty.add(time);
            }
            Ending::Cancelled(time) => response.cancel.add(time),
        }
    }

    pub(crate) fn snapshot(&self, name: &str, version: &str) -> ModelStatistics {
        let counters = self.counters.lock();
        let batch = |(size, [input, infer, output]): (&u64, &[Sum; 3])| InferBatchStatistics {
            batch_size: *size,
            compute_input: input.wire(),
            compute_infer: infer.wire(),
            compute_output: output.wire(),
        };
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_owned(),
            last_inference: counters.last_inference_ms,
            inference_count: counters.inferences,
            execution_count: counters.executions,
            inference_stats: Some(InferStatistics {
                success: counters.success.wire(),
                fail: counters.fail.wire(),
                queue: counters.queue.wire(),
                compute_input: counters.input.wire(),
                compute_infer: counters.infer.wire(),
                compute_output: counters.output.wire(),
                cache_hit: counters.cache_hit.wire(),
                cache_miss: counters.cache_miss.wire(),
            }),
            batch_stats: counters.batches.iter().map(batch).collect(),
            response_stats: counters
                .responses
                .iter()
                .enumerate()
                .map(|(index, response)| (index.to_string(), response.wire()))
                .collect(),
            ..ModelStatistics::default()
        }
    }
}

impl Attempt {
    /// Books a success with the times of its parts; its calls are booked by [`Statistics::executed`].
    pub(crate) fn success(mut self, timing: &Timing) {
        self.settled = true;
        let total = self.elapsed();
        let metrics = &self.statistics.metrics;
        metrics.success.inc();
        let Timing {
            queue,
            input,
            infer,
            output,
        } = *timing;
        metrics.observe([total, queue, input, infer, output]);
        let mut counters = self.statistics.counters.lock();
        counters.success.add(total);
        counters.queue.add(queue);
        counters.input.add(input);
        counters.infer.add(infer);
        counters.output.add(output);
    }

    /// Books a success that no engine ran for; `lookup` is what finding it cost.
    pub(crate) fn cached(mut self, lookup: Duration) {
        self.settled = true;
        let total = self.elapsed();
        let metrics = &self.statistics.metrics;
        metrics.success.inc();
        metrics.answered(total);
        metrics.cache_hits.count(lookup);
        let mut counters = self.statistics.counters.lock();
        counters.success.add(total);
        counters.cache_hit.add(lookup);
    }

    pub(crate) fn fail(mut self, error: &Error) {
        self.settled = true;
        self.book_failure(match error.root() {
            Error::QueueFull { .. }
            | Error::Busy { .. }
            | Error::Timeout { .. }
            | Error::Expired { .. } => Failure::Rejected,
            Error::Engine(_) | Error::Failed { .. } => Failure::Backend,
            _ => Failure::Other,
        });
    }

    fn book_failure(&self, failure: Failure) {
        self.statistics.metrics.failure(failure).inc();
        let elapsed = self.elapsed();
        self.statistics.counters.lock().fail.add(elapsed);
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.settled {
            self.book_failure(Failure::Canceled);
        }
    }
}

fn millis(wall: SystemTime) -> u64 {
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
