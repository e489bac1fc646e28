use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::route::RouteSpec;
use super::validate::Findings;

/// How one of many is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoutePolicy {
    /// Two by chance, and of them the one where less waiting is expected.
    #[default]
    P2c,
    /// Everybody in turn.
    RoundRobin,
    /// Fewest requests; of a large pool, among a sample.
    LeastLoaded,
    /// Least expected wait; of a large pool, among a sample.
    Fastest,
    /// Least `cost` of those that are fast enough.
    Cheapest,
    /// The same for every request of a session, while it is not overloaded.
    Affinity,
    /// Where most of the prompt is in the KV cache already, weighed against load.
    Prefix,
}

/// What makes requests a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AffinitySpec {
    /// Whose value names the session. Without it, the body's `prompt_cache_key` or `user` does; without any of them the
    /// request is nobody's, and goes where least waiting is expected.
    pub header: String,
    /// A member with more than this share of the mean load is passed over, in percent.
    pub load_percent_max: u32,
}

impl Default for AffinitySpec {
    fn default() -> Self {
        Self {
            header: "x-session-id".to_owned(),
            load_percent_max: 125,
        }
    }
}

/// What is fast enough for the policy `cheapest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CheapestSpec {
    /// Expected wait for the first byte.
    pub wait_ms_max: u64,
}

impl Default for CheapestSpec {
    fn default() -> Self {
        // A person notices; dearer servers are for that.
        Self { wait_ms_max: 2_000 }
    }
}

/// Requests of one colour stay among upstreams of that colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ColourSpec {
    /// Whose value names the colour.
    pub header: String,
    /// Whether a colour that no usable upstream has is refused; otherwise upstreams without a colour answer.
    pub strict: bool,
}

impl Default for ColourSpec {
    fn default() -> Self {
        Self {
            header: "x-kapok-colour".to_owned(),
            strict: false,
        }
    }
}

/// When upstreams of other regions than the request's are asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegionSpec {
    /// Whose value names the region a request belongs to. Without it, or when no upstream is there, the node's does.
    pub header: String,
    /// Requests at the best upstream of that region, from which on others are asked too.
    pub spill_depth: u32,
}

impl Default for RegionSpec {
    fn default() -> Self {
        // A queue of five in an engine is saturation to the Gateway API's inference extension; below sixteen requests
        // continuous batching still adds throughput.
        Self {
            header: "x-kapok-region".to_owned(),
            spill_depth: 16,
        }
    }
}

pub(super) fn check(spec: &RouteSpec, found: &mut Findings) {
    header(&spec.affinity.header, "spec.affinity.header", found);
    header(&spec.colour.header, "spec.colour.header", found);
    header(&spec.region.header, "spec.region.header", found);
    found.check(
        spec.affinity.load_percent_max > 100,
        "spec.affinity.loadPercentMax",
        || "must be above 100, which is the mean itself".to_owned(),
    );
    found.positive(spec.cheapest.wait_ms_max, "spec.cheapest.waitMsMax");
    found.positive(spec.region.spill_depth.into(), "spec.region.spillDepth");
}

fn header(name: &str, path: &str, found: &mut Findings) {
    found.check(name.parse::<HeaderName>().is_ok(), path, || {
        "the name of an HTTP header".to_owned()
    });
}
