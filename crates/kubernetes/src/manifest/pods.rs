//! What processes and replicas have in common: the pod.

use std::collections::{BTreeMap, BTreeSet};

use jobs::executor::Run;
use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvVar, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, PodSpec, PodTemplateSpec, PreferredSchedulingTerm, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use protocol::resource::RegionPolicy;
use scheduler::queue::Level;

use super::{Writer, labels, priority, resources};

/// Kubernetes' well-known label of a node's region.
const REGION: &str = "topology.kubernetes.io/region";

/// What NVIDIA's feature discovery calls a node's GPUs.
const PRODUCT: &str = "nvidia.com/gpu.product";

const HOST_NAME: &str = "kubernetes.io/hostname";

impl Writer<'_> {
    pub(super) fn pods(&self, run: &Run, container: Container) -> PodTemplateSpec {
        let spec = &run.job.spec;
        // Validated with the resource; an unknown level is promised nothing.
        let level = Level::try_from(spec.qos_level).unwrap_or(Level::LOWEST);
        let promise = (level, self.promises.of(level));
        let sharing = self.cluster.gpu_sharing;
        let container = Container {
            resources: Some(resources::requirements(&spec.resources, promise, sharing)),
            env: (!spec.env.is_empty()).then(|| variables(&spec.env)),
            ..container
        };
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels(run)),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                affinity: affinity(run),
                containers: vec![container],
                priority_class_name: Some(priority::class_name(spec)),
                // A job has no business with the cluster unless somebody says so.
                automount_service_account_token: Some(self.cluster.service_account.is_some()),
                service_account_name: self.cluster.service_account.clone(),
                termination_grace_period_seconds: i64::try_from(spec.grace_seconds).ok(),
                tolerations: (spec.resources.gpu_count() > 0).then(|| vec![gpu_taint()]),
                ..PodSpec::default()
            }),
        }
    }
}

fn variables(env: &BTreeMap<String, String>) -> Vec<EnvVar> {
    env.iter()
        .map(|(name, value)| EnvVar {
            name: name.clone(),
            // Kubernetes expands `$(NAME)`; what was submitted is meant as it is.
            value: Some(value.replace("$(", "$$(")),
            value_from: None,
        })
        .collect()
}

/// Nodes with GPUs are often kept for pods that ask for one, by this taint.
fn gpu_taint() -> Toleration {
    Toleration {
        key: Some("nvidia.com/gpu".to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    }
}

/// The places that were chosen; the region and the GPUs' models hold anyway, for a place may be left to the cluster.
fn affinity(run: &Run) -> Option<Affinity> {
    let spec = &run.job.spec;
    let mut required = Vec::new();
    let mut preferred = None;
    if let Some(region) = &spec.region {
        let here = one_of(REGION, std::slice::from_ref(region));
        match spec.region_policy {
            RegionPolicy::Required => required.push(here),
            RegionPolicy::Preferred => {
                preferred = Some(vec![PreferredSchedulingTerm {
                    weight: 100,
                    preference: term(vec![here]),
                }]);
            }
        }
    }
    let models = &spec.resources.gpu_models;
    if !models.is_empty() {
        required.push(one_of(PRODUCT, models));
    }
    let places = run.placements.iter().map(|place| place.node.clone());
    let nodes: Vec<_> = places.collect::<BTreeSet<_>>().into_iter().collect();
    if !nodes.is_empty() {
        required.push(one_of(HOST_NAME, &nodes));
    }
    if required.is_empty() && preferred.is_none() {
        return None;
    }
    let required = (!required.is_empty()).then(|| NodeSelector {
        node_selector_terms: vec![term(required)],
    });
    Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        }),
        ..Affinity::default()
    })
}

fn one_of(label: &str, values: &[String]) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: label.to_owned(),
        operator: "In".to_owned(),
        values: Some(values.to_vec()),
    }
}

fn term(requirements: Vec<NodeSelectorRequirement>) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: Some(requirements),
        match_fields: None,
    }
}
