//! What is done when an upstream fails: fields of routes and of upstreams.

use serde::{Deserialize, Serialize};

use super::validate::Findings;

/// When a request is sent to another upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetrySpec {
    /// Upstreams asked for one request, the first included; 1 asks nobody else.
    pub attempts: u32,
    /// Whether a request that may have been obeyed is sent again.
    pub replay: ReplayRule,
    /// Without a byte of the answer for this long, another upstream is asked as well; the first that answers wins. A
    /// third of the caller's own patience if that is shorter; 0 never asks.
    pub silence_ms: u64,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 3,
            replay: ReplayRule::Auto,
            silence_ms: 30_000,
        }
    }
}

/// Whether a request that was written, and not answered, may be sent to another upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayRule {
    /// Inference may, for it changes nothing; whatever may create something may not.
    #[default]
    Auto,
    Never,
    Always,
}

/// A second upstream is asked before the first has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HedgeSpec {
    /// After so long without a byte of the answer. Near the 95th percentile of what is usual, one request in twenty
    /// costs twice.
    pub after_ms: u64,
}

/// What happens to an answer that stops in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RescueSpec {
    /// Whether another upstream continues a stream that was cut.
    pub streams: bool,
    /// Without a new part of a stream for this long, another upstream is asked to continue as well; whoever goes on
    /// first wins. 0 waits as long as the upstream's `idleTimeoutMs`.
    pub stall_ms: u64,
    /// After so long without a part of an event stream the client gets a comment, so that nothing in between takes the
    /// connection for dead; 0 sends none.
    pub heartbeat_ms: u64,
}

impl Default for RescueSpec {
    fn default() -> Self {
        Self {
            streams: true,
            stall_ms: 10_000,
            // Proxies and load balancers give up after 30 or 60 s of silence; the shortest known default is 20 s.
            heartbeat_ms: 15_000,
        }
    }
}

/// Asking an upstream how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthSpec {
    /// GET on the upstream's URL; 2xx means well. Absent: the path that servers of this kind have, if they have one.
    /// Empty: it is not asked.
    pub path: Option<String>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// Checks failed in a row after which it gets requests only if nobody else can.
    pub unhealthy_after: u32,
    /// Below this much free GPU memory, in MiB, it gets requests only if nobody else can. 0 does not look.
    pub free_gpu_memory_min_mb: u64,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            path: None,
            interval_ms: 5_000,
            timeout_ms: 2_000,
            unhealthy_after: 3,
            free_gpu_memory_min_mb: 0,
        }
    }
}

/// When an upstream that fails is left alone. Only broken connections, silence and 5xx other than 503 are failures; what
/// one caller's requests bring about counts for that caller only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierSpec {
    /// Failures in a row; 0 does not look.
    pub consecutive: u32,
    /// Failures in percent of at least `requestsMin` requests within `windowMs`; 0 does not look.
    pub failure_percent: u32,
    pub requests_min: u32,
    pub window_ms: u64,
    /// How long it is left alone; doubled each time it still fails, up to `openMaxMs`.
    pub open_ms: u64,
    pub open_max_ms: u64,
}

impl Default for OutlierSpec {
    fn default() -> Self {
        Self {
            consecutive: 5,
            failure_percent: 50,
            requests_min: 20,
            window_ms: 10_000,
            open_ms: 5_000,
            open_max_ms: 30_000,
        }
    }
}

/// How an upstream is told to go on with an answer that another one began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Continuation {
    /// As its kind does it: vLLM, SGLang and kapok `continueFinalMessage`, a server that calls itself llama.cpp
    /// `prefill`, others not at all.
    #[default]
    Auto,
    /// Not at all: the request is made again, and what the client has already is checked and left out.
    None,
    /// A last message of the assistant is continued.
    Prefill,
    /// The same, if the request says `continue_final_message`.
    ContinueFinalMessage,
}

pub(super) fn check_retry(spec: &RetrySpec, found: &mut Findings) {
    found.check(
        (1..=10).contains(&spec.attempts),
        "spec.retry.attempts",
        || "from 1 (nobody else is asked) to 10".to_owned(),
    );
}

pub(super) fn check_health(spec: &HealthSpec, found: &mut Findings) {
    let starts_well = |path: &String| path.is_empty() || path.starts_with('/');
    found.check(
        spec.path.as_ref().is_none_or(starts_well),
        "spec.health.path",
        || "a path begins with a slash; an empty one asks nothing".to_owned(),
    );
    found.check(spec.interval_ms >= 100, "spec.health.intervalMs", || {
        "must be at least 100".to_owned()
    });
    found.positive(spec.timeout_ms, "spec.health.timeoutMs");
    found.positive(
        u64::from(spec.unhealthy_after),
        "spec.health.unhealthyAfter",
    );
}

pub(super) fn check_outlier(spec: &OutlierSpec, found: &mut Findings) {
    found.check(
        spec.failure_percent <= 100,
        "spec.outlier.failurePercent",
        || "a share of 100 at most; 0 does not look".to_owned(),
    );
    found.positive(spec.window_ms, "spec.outlier.windowMs");
    found.positive(spec.open_ms, "spec.outlier.openMs");
    found.check(
        spec.open_max_ms >= spec.open_ms,
        "spec.outlier.openMaxMs",
        || "not shorter than openMs".to_owned(),
    );
}
