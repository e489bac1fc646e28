use serde::{Deserialize, Serialize};

use super::validate::Findings;

/// How much a caller or a route may have. What is absent is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// The window slides: in no stretch of this length are more requests or tokens let through than allowed.
    pub window_ms: u64,
    /// Requests in a window; one more is answered 429.
    pub requests: Option<u64>,
    /// Tokens in a window, of prompts and of answers. A request reserves what it may use and gives back what it did not.
    pub tokens: Option<u64>,
    /// Requests at a time. A key's next one is answered 429; a route's waits in line.
    pub max_in_flight: Option<u32>,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            window_ms: 60_000,
            requests: None,
            tokens: None,
            max_in_flight: None,
        }
    }
}

/// The line before a route, or before upstreams that are all busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QueueSpec {
    /// Requests in line. When it is full, a higher class takes the place of the youngest of the lowest; else 503.
    pub max: usize,
    /// Longest wait; absent means the request's own deadline.
    pub wait_ms: Option<u64>,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            max: 1024,
            wait_ms: None,
        }
    }
}

/// Who goes first where requests wait, lowest first. Every class gets its share: none starves.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Bulk,
    #[default]
    Standard,
    Interactive,
    Realtime,
}

impl Priority {
    /// Highest first: the order of a round.
    pub const ALL: [Self; 4] = [
        Self::Realtime,
        Self::Interactive,
        Self::Standard,
        Self::Bulk,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Standard => "standard",
            Self::Interactive => "interactive",
            Self::Realtime => "realtime",
        }
    }

    /// As a header says it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|class| class.name().eq_ignore_ascii_case(text.trim()))
    }
}

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Calls that ask a model.
    Inference,
    /// Which models there are, and what is known of them.
    Models,
    /// `/metrics`.
    Metrics,
    /// Loading and unloading, settings, shared memory.
    Orders,
    /// The admin API.
    Admin,
    /// Jobs: whoever submits one runs programs on the node.
    Jobs,
}

impl Scope {
    pub const ALL: [Self; 6] = [
        Self::Inference,
        Self::Models,
        Self::Metrics,
        Self::Orders,
        Self::Admin,
        Self::Jobs,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Models => "models",
            Self::Metrics => "metrics",
            Self::Orders => "orders",
            Self::Admin => "admin",
            Self::Jobs => "jobs",
        }
    }
}

/// Longer windows are quotas, which have to outlive the process.
const WINDOW_MS_MAX: u64 = 24 * 3600 * 1000;

/// Shorter ones could not be told apart by their 64 parts.
const WINDOW_MS_MIN: u64 = 100;

pub(super) fn check(spec: &LimitsSpec, found: &mut Findings) {
    let legal = (WINDOW_MS_MIN..=WINDOW_MS_MAX).contains(&spec.window_ms);
    found.check(legal, "spec.limits.windowMs", || {
        format!("from {WINDOW_MS_MIN} to {WINDOW_MS_MAX}, which is a day")
    });
    for (value, path) in [
        (spec.requests, "spec.limits.requests"),
        (spec.tokens, "spec.limits.tokens"),
        (spec.max_in_flight.map(u64::from), "spec.limits.maxInFlight"),
    ] {
        if let Some(value) = value {
            found.positive(value, path);
        }
    }
}

pub(super) fn check_queue(spec: &QueueSpec, found: &mut Findings) {
    if let Some(wait) = spec.wait_ms {
        found.positive(wait, "spec.queue.waitMs");
    }
}
