use base::ErrorKind;

use crate::json::Fault;
use crate::{ApiError, shown};

/// JSON that is broken as a whole.
pub(super) fn broken(fault: Fault) -> ApiError {
    ApiError::invalid(format!("failed to parse the request JSON: {fault}"))
}

/// Which tensor, and where in the document, for messages and `param`.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `input` or `output`.
    pub(super) role: &'static str,
    pub(super) index: usize,
    pub(super) name: Option<String>,
}

impl Place {
    pub(super) fn error(&self, field: &str, message: &str) -> ApiError {
        self.of_kind(ErrorKind::Invalid, field, message)
    }

    /// ``input `x`: …``, with `inputs[0].shape` as the parameter at fault.
    pub(super) fn of_kind(&self, kind: ErrorKind, field: &str, message: &str) -> ApiError {
        let Self { role, index, name } = self;
        let message = name.as_ref().map_or_else(
            || format!("{role} {index}: {message}"),
            |name| format!("{role} `{}`: {message}", shown::name(name)),
        );
        let dot = if field.is_empty() { "" } else { "." };
        ApiError::new(kind, message).with_param(format!("{role}s[{index}]{dot}{field}"))
    }

    /// `Unable to parse '…'` is what Triton's clients look for.
    pub(super) fn unreadable(&self, field: &str, fault: Fault) -> ApiError {
        self.error(field, &format!("Unable to parse '{field}': {fault}"))
    }

    pub(super) fn missing(&self, field: &str) -> ApiError {
        let message = format!(
            "Unable to parse '{field}': attempt to access non-existing object member '{field}'"
        );
        self.error(field, &message)
    }
}
