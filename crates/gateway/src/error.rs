use std::net::SocketAddr;

use base::{ErrorKind, Retry};

/// Why the gateway could not start or take a set of resources. What a request can run into is `protocol::ApiError`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on `{addr}`")]
    Bind {
        addr: SocketAddr,
        source: std::io::Error,
    },
    /// The resource's kind and name, and what is wrong with it.
    #[error("{kind} `{name}`: {reason}")]
    Resource {
        kind: &'static str,
        name: String,
        reason: String,
    },
    #[error("Route `{route}`: no upstream is named `{name}`{}", suggestion(nearest.as_deref()))]
    UnknownUpstream {
        route: String,
        name: String,
        nearest: Option<String>,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bind { .. } => ErrorKind::Unavailable,
            Self::Resource { .. } => ErrorKind::Invalid,
            Self::UnknownUpstream { .. } => ErrorKind::NotFound,
        }
    }

    pub fn retry(&self) -> Retry {
        Retry::No
    }
}
