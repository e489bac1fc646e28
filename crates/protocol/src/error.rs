use std::fmt;
use std::time::Duration;

use base::{ErrorKind, Retry};

/// An error on its way to a client: every room's own errors become this at the door, and nothing else is shown.
///
/// `message` is public; what only operators may see goes to the log and never into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub kind: ErrorKind,
    /// Lowercase, no full stop, names the thing and what to do about it.
    pub message: String,
    /// The field of the request at fault, as the client wrote it (OpenAI's `param`).
    pub param: Option<String>,
    /// A machine-readable reason (OpenAI's `code`), such as `model_not_found`.
    pub code: Option<&'static str>,
    pub retry: Retry,
    /// Where a protocol's clients expect another HTTP status than the kind's.
    pub http: Option<u16>,
}

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry: Retry::No,
            http: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Triton's own words for a model that is not in the repository; its clients match on them.
    pub fn unknown_model(name: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!(
                "Request for unknown model: '{}' is not found",
                crate::shown::name(name)
            ),
        )
        .with_code("model_not_found")
        .with_param("model")
    }

    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry = Retry::After(wait);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
