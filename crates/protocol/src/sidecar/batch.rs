use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A latency that the batcher works towards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    /// 99 of 100 requests should be answered within this. It takes the place of `preferred_batch_size` and
    /// `max_queue_delay_microseconds`: how long batches take is learned while they run. 0, the default, sets no target.
    pub p99_ms: f64,
}

/// An hour: longer is no latency target.
const P99_MS_MAX: f64 = 3_600_000.0;

impl Slo {
    pub fn target(&self) -> Option<Duration> {
        (self.p99_ms > 0.0)
            .then(|| Duration::try_from_secs_f64(self.p99_ms / 1e3).ok())
            .flatten()
    }

    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        check(
            self.p99_ms == 0.0 || (0.01..=P99_MS_MAX).contains(&self.p99_ms),
            &["slo", "p99_ms"],
            "milliseconds from 0.01 to an hour, or 0 for no target",
        );
    }
}

/// Batch sizes that are run before the model serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Ascending; empty leaves it to the model.
    pub buckets: Vec<usize>,
    /// Fill a batch up to one of `buckets` where that was measured to be faster.
    pub pad: bool,
}

/// More sizes than are worth warming.
const BUCKETS_MAX: usize = 64;

impl Default for Batch {
    fn default() -> Self {
        Self {
            buckets: Vec::new(),
            pad: true,
        }
    }
}

impl Batch {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        let buckets = &self.buckets;
        let rising = buckets.windows(2).all(|pair| pair[0] < pair[1]);
        check(
            rising && !buckets.contains(&0) && buckets.len() <= BUCKETS_MAX,
            &["batch", "buckets"],
            "at most 64 sizes, each above the one before, the first at least 1",
        );
    }
}
