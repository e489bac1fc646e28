use jobs::executor::{Run, RunId};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, PersistentVolumeClaimVolumeSource, Probe, Service,
    ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{MODEL_PORT, Writer, selector};

/// Where a replica finds its repository of models.
const MODELS: &str = "/models";

/// What a Deployment waits by default before it calls itself stuck.
const PROGRESS_SECONDS: i32 = 600;

impl Writer<'_> {
    /// Kapok itself, with this one model.
    pub(super) fn replica(&self, run: &Run, model: &str, metadata: ObjectMeta) -> Deployment {
        let spec = &run.job.spec;
        let mut pods = self.pods(run, self.server(model));
        if let (Some(pod), Some(claim)) = (&mut pods.spec, &self.cluster.models_claim) {
            pod.volumes = Some(vec![Volume {
                name: "models".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.clone(),
                    read_only: Some(true),
                }),
                ..Volume::default()
            }]);
        }
        let patience = spec.timeout_seconds.map(i32::try_from);
        Deployment {
            metadata,
            spec: Some(DeploymentSpec {
                progress_deadline_seconds: Some(
                    patience.map_or(PROGRESS_SECONDS, |seconds| seconds.unwrap_or(i32::MAX)),
                ),
                replicas: i32::try_from(spec.gang).ok(),
                selector: LabelSelector {
                    match_labels: Some(selector(&run.id)),
                    ..LabelSelector::default()
                },
                // A second set of devices, for the time of a change, is what a full cluster has not.
                strategy: Some(DeploymentStrategy {
                    type_: Some("Recreate".to_owned()),
                    rolling_update: None,
                }),
                template: pods,
                ..DeploymentSpec::default()
            }),
            status: None,
        }
    }

    fn server(&self, model: &str) -> Container {
        // Triton's words, which say all of it without a file.
        let args = vec![
            "tritonserver".to_owned(),
            format!("--model-repository={MODELS}"),
            "--model-control-mode=explicit".to_owned(),
            format!("--load-model={model}"),
            "--http-address=0.0.0.0".to_owned(),
            format!("--http-port={MODEL_PORT}"),
        ];
        let ready = format!("/v2/models/{}/ready", escaped(model));
        Container {
            name: "model".to_owned(),
            image: self.cluster.image.clone(),
            args: Some(args),
            ports: Some(vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: MODEL_PORT,
                ..ContainerPort::default()
            }]),
            readiness_probe: Some(Probe {
                http_get: Some(HTTPGetAction {
                    path: Some(ready),
                    port: IntOrString::String("http".to_owned()),
                    ..HTTPGetAction::default()
                }),
                period_seconds: Some(2),
                ..Probe::default()
            }),
            volume_mounts: self.cluster.models_claim.as_ref().map(|_| {
                vec![VolumeMount {
                    name: "models".to_owned(),
                    mount_path: MODELS.to_owned(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                }]
            }),
            ..Container::default()
        }
    }
}

/// A path segment.
fn escaped(model: &str) -> String {
    let mut text = String::with_capacity(model.len());
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// One address for all replicas of a model.
pub(super) fn service(id: &RunId, metadata: ObjectMeta) -> Service {
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(selector(id)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: MODEL_PORT,
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
