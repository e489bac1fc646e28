//! Trace and log settings, as Triton's extensions have them: a request changes some, the answer is all of them.

mod log;
#[cfg(test)]
mod tests;
mod trace;

pub use log::{LogChange, LogFormat, LogSettings};
pub use trace::{Change, TraceChange, TraceLevel, TraceSettings};

use serde_json::{Map, Value};

use crate::ApiError;

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("failed to parse the request JSON: {error}")))
}

/// Feeds arbitrary bytes to every parser of this module.
pub(super) fn fuzz_settings(data: &[u8]) {
    use super::proto::{LogSettingsRequest, TraceSettingRequest};
    use prost::Message as _;
    let _change = LogChange::from_json(data);
    let _change = TraceChange::from_json(data);
    if let Ok(message) = LogSettingsRequest::decode(data) {
        let _change = LogChange::from_grpc(message);
    }
    if let Ok(message) = TraceSettingRequest::decode(data) {
        let _change = TraceChange::from_grpc(message);
    }
}
