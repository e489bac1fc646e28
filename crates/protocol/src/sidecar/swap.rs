use serde::{Deserialize, Serialize};

/// How one version replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Swap {
    /// Run this many of the last requests on the new version before it serves, and refuse it when its answers differ
    /// beyond `[agree]`, or when it is slower than `max_p99_regression`. 0, the default, compares nothing: a model that
    /// has learned more is meant to answer otherwise.
    pub compare: usize,
    /// Input bytes kept for `compare`; a request with more is not kept.
    pub compare_bytes_max: usize,
    /// Back to the previous version when the new one's 99th percentile is more than so many times the previous one's.
    /// 0 never looks.
    pub max_p99_regression: f64,
    /// Back to the previous version when more than this share of the new one's calls fail in its engine, and more than
    /// did before. 1 never looks.
    pub max_error_rate: f64,
    /// Calls of the new version before it is judged by its times; it is judged by its errors after a fifth of them.
    pub min_requests: u64,
    /// How long the previous version stays in memory, ready to come back at once, and the new one is watched.
    pub keep_previous_s: u64,
}

/// Bounds of what a ring of requests may hold.
const COMPARE_MAX: usize = 1024;
const COMPARE_BYTES_MAX: usize = 1 << 30;
/// A day: longer is two models, and each has its name.
const KEEP_MAX_S: u64 = 86_400;

impl Default for Swap {
    fn default() -> Self {
        Self {
            compare: 0,
            compare_bytes_max: 4 << 20,
            max_p99_regression: 3.0,
            max_error_rate: 0.05,
            min_requests: 200,
            keep_previous_s: 60,
        }
    }
}

impl Swap {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        check(
            self.compare <= COMPARE_MAX,
            &["swap", "compare"],
            "at most 1024 requests",
        );
        check(
            self.compare_bytes_max <= COMPARE_BYTES_MAX,
            &["swap", "compare_bytes_max"],
            "at most 1 GiB",
        );
        let factor = self.max_p99_regression;
        check(
            factor == 0.0 || (factor.is_finite() && factor >= 1.0),
            &["swap", "max_p99_regression"],
            "a factor from 1 up, or 0 to never look",
        );
        check(
            (0.0..=1.0).contains(&self.max_error_rate),
            &["swap", "max_error_rate"],
            "a share from 0 to 1",
        );
        check(
            self.min_requests > 0,
            &["swap", "min_requests"],
            "at least 1 request",
        );
        check(
            self.keep_previous_s <= KEEP_MAX_S,
            &["swap", "keep_previous_s"],
            "at most a day",
        );
    }
}
