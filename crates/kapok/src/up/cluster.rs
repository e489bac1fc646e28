//! Jobs on a Kubernetes cluster, where the node names one.

use std::sync::Arc;

use base::{Clock, Tasks};
use jobs::executor::Executor;
use protocol::resource::KubernetesSpec;

use crate::config::Config;
use crate::exit::{Failure, Outcome};

/// None where jobs run on this node.
pub(super) async fn executor(
    config: &Config,
    around: (Tasks, Clock),
) -> Outcome<Option<Arc<dyn Executor>>> {
    match &config.node.jobs.kubernetes {
        Some(cluster) => connected(cluster, around).await.map(Some),
        None => Ok(None),
    }
}

#[cfg(feature = "kubernetes")]
async fn connected(cluster: &KubernetesSpec, around: (Tasks, Clock)) -> Outcome<Arc<dyn Executor>> {
    let client = kubernetes::connect(cluster).await.map_err(|error| {
        Failure::usage(base::chain(&error))
            .hint("name a kubeconfig in the Node's spec.jobs.kubernetes, or set KUBECONFIG")
    })?;
    let executor = kubernetes::Kubernetes::new(client, cluster.clone(), around);
    Ok(Arc::new(executor))
}

#[cfg(not(feature = "kubernetes"))]
fn connected(
    _cluster: &KubernetesSpec,
    _around: (Tasks, Clock),
) -> std::future::Ready<Outcome<Arc<dyn Executor>>> {
    let failure = Failure::usage("spec.jobs.kubernetes: this kapok was built without Kubernetes")
        .hint("cargo build --release --features kubernetes");
    std::future::ready(Err(failure))
}
