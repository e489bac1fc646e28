use std::path::PathBuf;
use std::time::Duration;

use base::{ErrorKind, Retry};
use protocol::ApiError;

use crate::engine::EngineError;

/// Why a call got no answer, or the runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read model repository `{}`: {reason}", path.display())]
    Repository { path: PathBuf, reason: String },
    #[error("cannot start compute threads: {0}")]
    Threads(std::io::Error),
    /// Triton's own words; its clients match on them.
    #[error("Request for unknown model: '{model}' is not found")]
    UnknownModel { model: String },
    #[error("Request for unknown model: '{model}' version {version} is not found")]
    UnknownVersion { model: String, version: String },
    #[error("Request for unknown model: '{model}' version {version} is not at ready state")]
    NotReady { model: String, version: String },
    /// Triton's own words, too: all of its versions are unloaded.
    #[error("Request for unknown model: '{model}' has no available versions")]
    NoVersion { model: String },
    /// The same words for versions that should serve and do not: the model is there, and may serve again.
    #[error("Request for unknown model: '{model}' has no available versions")]
    NoneReady { model: String },
    #[error("model `{model}` cannot be loaded now: {reason}")]
    NoRoom { model: String, reason: String },
    /// The request does not fit the model; `param` is the field at fault.
    #[error("{message}")]
    Request { message: String, param: String },
    /// Triton's own words, up to the first two.
    #[error("ModelInfer RPC doesn't support models with decoupled transaction policy")]
    Decoupled,
    /// A parameter that asks something of the server has the wrong type; the error names it.
    #[error(transparent)]
    Parameter(ApiError),
    /// A request that waited before this one in its sequence was given up.
    #[error(
        "sequence {sequence} of model '{model}' was ended: a request before this one was cancelled"
    )]
    SequenceEnded { model: String, sequence: String },
    /// The same, because a panic or a crash took what the lane kept for it.
    #[error(
        "sequence {sequence} of model '{model}' was ended: the lane that kept its state failed; start it again"
    )]
    SequenceLost { model: String, sequence: String },
    /// Triton's words, up to the colon.
    #[error("Exceeds maximum queue size: queue of model `{model}` is full ({waiting} waiting)")]
    QueueFull { model: String, waiting: usize },
    #[error("model `{model}` cannot be served now: too much work is waiting for a compute thread")]
    Busy { model: String },
    #[error("deadline passed {place} of model `{model}`")]
    Timeout { model: String, place: &'static str },
    /// The queue's policy allows no longer wait. Triton's words, up to the colon.
    #[error("Request timeout expired: no lane of model `{model}` was free in time")]
    Expired { model: String },
    #[error("model `{model}` failed: {reason}")]
    Failed { model: String, reason: String },
    /// What it means is the member's error.
    #[error("in ensemble '{ensemble}', step {step} (model '{model}'{}): {error}", of_item(*item))]
    Step {
        ensemble: String,
        step: usize,
        model: String,
        item: Option<usize>,
        error: Box<Error>,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Text(#[from] text::Error),
}

impl Error {
    pub(crate) fn request(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Request {
            message: message.into(),
            param: param.into(),
        }
    }

    /// The error itself, whatever ensembles it came through.
    pub(crate) fn root(&self) -> &Self {
        match self {
            Self::Step { error, .. } => error.root(),
            error => error,
        }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Repository { .. } | Self::Request { .. } => ErrorKind::Invalid,
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } | Self::NoVersion { .. } => {
                ErrorKind::NotFound
            }
            Self::NotReady { .. }
            | Self::NoneReady { .. }
            | Self::NoRoom { .. }
            | Self::QueueFull { .. }
            | Self::Busy { .. }
            | Self::SequenceLost { .. }
            | Self::Expired { .. } => ErrorKind::Unavailable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Decoupled => ErrorKind::Unsupported,
            Self::SequenceEnded { .. } => ErrorKind::Cancelled,
            Self::Parameter(error) => error.kind,
            Self::Threads(_) | Self::Failed { .. } => ErrorKind::Internal,
            // The model that the client asked for is there.
            Self::Step { error, .. } => match error.kind() {
                ErrorKind::NotFound => ErrorKind::Unavailable,
                kind => kind,
            },
            Self::Engine(error) => error.kind(),
            Self::Text(error) => error.kind(),
        }
    }

    pub fn retry(&self) -> Retry {
        match self {
            // Long enough for a queue of typical calls to move, short enough not to idle the lanes.
            Self::QueueFull { .. } | Self::Busy { .. } | Self::Expired { .. } => {
                Retry::After(Duration::from_secs(1))
            }
            Self::NotReady { .. } | Self::NoneReady { .. } | Self::NoRoom { .. } => {
                Retry::After(Duration::from_secs(2))
            }
            Self::Step { error, .. } => error.retry(),
            _ => Retry::No,
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } | Self::NoVersion { .. } => {
                Some("model_not_found")
            }
            Self::NoRoom { .. } => Some("no_memory"),
            Self::NotReady { .. } | Self::NoneReady { .. } => Some("model_not_ready"),
            Self::QueueFull { .. } | Self::Busy { .. } => Some("queue_full"),
            Self::Timeout { .. } | Self::Expired { .. } => Some("deadline_exceeded"),
            Self::Decoupled => Some("decoupled_model"),
            Self::Step { error, .. } => error.code().filter(|code| *code != "model_not_found"),
            _ => None,
        }
    }
}

fn of_item(item: Option<usize>) -> String {
    item.map_or_else(String::new, |item| format!(", item {item}"))
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let mut api = ApiError::new(error.kind(), error.to_string());
        api.code = error.code();
        api.retry = error.retry();
        api.param = match error {
            Error::UnknownModel { .. }
            | Error::UnknownVersion { .. }
            | Error::NoVersion { .. }
            | Error::NotReady { .. }
            | Error::NoneReady { .. } => Some("model".to_owned()),
            Error::Request { param, .. } => Some(param),
            Error::Parameter(error) => error.param,
            _ => None,
        };
        api
    }
}
