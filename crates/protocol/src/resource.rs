//! The design's resources: `kapok.yaml` today, any other source of resources later.
//!
//! Kubernetes-shaped documents, strict: an unknown field is an error that names line, column and the nearest known field.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

mod alias;
mod discovery;
mod endpoint;
mod failure;
mod job;
mod jobs;
mod key;
mod kubernetes;
mod limits;
mod locate;
mod node;
mod otlp;
mod parse;
mod route;
mod routing;
mod secret;
#[cfg(test)]
mod tests;
mod upstream;
mod validate;

pub use crate::file_error::FileError as ResourceError;
pub use alias::Alias;
pub use discovery::{DiscoverySpec, DnsRecords, DnsSpec, EtcdSpec, EtcdTlsSpec, RegisterSpec};
pub use endpoint::{Endpoint, fuzz_endpoints, parse_endpoints};
pub use failure::{
    Continuation, HealthSpec, HedgeSpec, OutlierSpec, ReplayRule, RescueSpec, RetrySpec,
};
pub use job::{
    Condition, ConditionStatus, ConditionType, Cores, Job, JobEnd, JobPlacement, JobPriority,
    JobSpec, JobState, JobStatus, Memory, RegionPolicy, ResourcesSpec, RestartPolicy, RestartSpec,
    Submission, Timestamp, reason,
};
pub use jobs::{JobControl, JobsSpec};
pub use key::KeySpec;
pub use kubernetes::{GpuSharing, KubernetesSpec};
pub use limits::{LimitsSpec, Priority, QueueSpec, Scope};
pub use node::{
    IoThreads, ModelControl, NodeSpec, RateLimit, SettingsControl, SharedMemory, TraceSpec,
};
pub use otlp::{OtlpProtocol, OtlpSpec, Share};
pub use parse::{fuzz_resource_yaml, parse_documents};
pub use route::{FallbackReason, RouteFallback, RouteSpec, RouteTarget};
pub use routing::{AffinitySpec, CheapestSpec, ColourSpec, RegionSpec, RoutePolicy};
pub use secret::Secret;
pub use upstream::{LoadSpec, OipForm, ProcessSpec, UpstreamKind, UpstreamSpec};
pub use validate::Problem;

/// The only version so far.
pub const API_VERSION: &str = "kapok.dev/v1alpha1";

#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    Node(NodeSpec),
    Upstream(UpstreamSpec),
    Route(RouteSpec),
    Key(KeySpec),
    /// Submitted to a node, never a part of its configuration.
    Job(Box<JobSpec>),
}

impl Spec {
    /// Every kind there is, in the order of the words.
    pub const KINDS: [&str; 5] = ["Node", "Upstream", "Route", "Key", "Job"];

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Node(_) => "Node",
            Self::Upstream(_) => "Upstream",
            Self::Route(_) => "Route",
            Self::Key(_) => "Key",
            Self::Job(_) => "Job",
        }
    }
}

impl Serialize for Resource {
    /// As a manifest: `apiVersion`, `kind`, `metadata`, `spec`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut manifest = serializer.serialize_struct("Resource", 4)?;
        manifest.serialize_field("apiVersion", API_VERSION)?;
        manifest.serialize_field("kind", self.spec.kind())?;
        manifest.serialize_field("metadata", &self.metadata)?;
        match &self.spec {
            Spec::Node(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Upstream(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Route(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Key(spec) => manifest.serialize_field("spec", spec)?,
            Spec::Job(spec) => manifest.serialize_field("spec", spec)?,
        }
        manifest.end()
    }
}
