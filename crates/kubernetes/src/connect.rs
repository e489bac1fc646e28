use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use protocol::resource::KubernetesSpec;

use crate::error::Error;

/// A client by the kubeconfig (`KUBECONFIG`, else `~/.kube/config`), or by a pod's service account inside of a cluster.
/// Nothing is asked of the cluster yet.
pub async fn connect(cluster: &KubernetesSpec) -> Result<Client, Error> {
    let missing = |error: &(dyn std::error::Error + 'static)| Error::NoConfig(base::chain(error));
    let config = match (&cluster.kubeconfig, &cluster.context) {
        (None, None) => Config::infer().await.map_err(|error| missing(&error))?,
        (file, context) => {
            let options = KubeConfigOptions {
                context: context.clone(),
                ..KubeConfigOptions::default()
            };
            let read = match file {
                Some(file) => Kubeconfig::read_from(file),
                None => Kubeconfig::read(),
            };
            let read = read.map_err(|error| missing(&error))?;
            let config = Config::from_custom_kubeconfig(read, &options).await;
            config.map_err(|error| missing(&error))?
        }
    };
    Client::try_from(config).map_err(|error| Error::Client(base::chain(&error)))
}
