use base::ErrorKind;
use protocol::ApiError;

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no cluster is known: {0}")]
    NoConfig(String),
    #[error("the cluster's client cannot be built: {0}")]
    Client(String),
}

/// What a caller can do about a refusal of the cluster.
pub(crate) fn of_cluster(doing: &str, error: &kube::Error) -> ApiError {
    let kind = match error {
        kube::Error::Api(status) => match status.code {
            400 | 422 => ErrorKind::Invalid,
            401 | 403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            429 => ErrorKind::Exhausted,
            504 => ErrorKind::Timeout,
            _ => ErrorKind::Unavailable,
        },
        _ => ErrorKind::Unavailable,
    };
    let words = match error {
        kube::Error::Api(status) => status.message.clone(),
        error => base::chain(error),
    };
    ApiError::new(kind, format!("the cluster cannot {doing}: {words}"))
}

/// The API server's code for an error that it gave itself.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
