use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::validate::{Findings, is_name};

/// A cluster that runs the jobs, instead of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesSpec {
    /// Absent means `KUBECONFIG`, else `~/.kube/config`, else the service account of the pod that kapok runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Of the kubeconfig; absent means its current one.
    pub context: Option<String>,
    /// Where jobs' objects are.
    pub namespace: String,
    /// Kueue's LocalQueue: jobs are created suspended, and start when it admits them.
    pub queue_name: Option<String>,
    /// For models, where it is kapok's own, and for commands that name no image.
    pub image: Option<String>,
    /// A PersistentVolumeClaim with the repository of models; absent means that the image has it in `/models`.
    pub models_claim: Option<String>,
    pub service_account: Option<String>,
    /// How a part of a GPU is asked for.
    pub gpu_sharing: GpuSharing,
}

impl Default for KubernetesSpec {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: "default".to_owned(),
            queue_name: None,
            image: None,
            models_claim: None,
            service_account: None,
            gpu_sharing: GpuSharing::default(),
        }
    }
}

/// Whose resources stand for a part of a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GpuSharing {
    /// NVIDIA's device plugin: `nvidia.com/gpu.shared`, whose size is the cluster's.
    #[default]
    TimeSlicing,
    /// HAMi: `nvidia.com/gpu` with `gpucores` and `gpumem`, which it enforces.
    Hami,
}

pub(super) fn check(spec: &KubernetesSpec, found: &mut Findings) {
    let names = [
        (Some(&spec.namespace), "spec.jobs.kubernetes.namespace"),
        (spec.queue_name.as_ref(), "spec.jobs.kubernetes.queueName"),
        (
            spec.models_claim.as_ref(),
            "spec.jobs.kubernetes.modelsClaim",
        ),
        (
            spec.service_account.as_ref(),
            "spec.jobs.kubernetes.serviceAccount",
        ),
    ];
    for (name, path) in names {
        found.check(name.is_none_or(|name| is_name(name)), path, || {
            "the name of an object: 1 to 63 of a-z, 0-9, `-` and `.`".to_owned()
        });
    }
}
