use serde::{Deserialize, Serialize};

/// When a model may leave memory; it comes back with its next request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Stays in memory under the node's budget, and is loaded at start.
    pub pin: bool,
    /// Leaves memory after so many seconds without a request; absent means only when another model needs the room.
    pub idle_s: Option<u64>,
    /// Memory of a GPU that this model may use, in MiB; it is promised to the model before it loads. Absent means three
    /// times the model's file, and at least 512.
    pub device_mb: Option<u64>,
}

impl Memory {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        check(
            self.idle_s != Some(0),
            &["memory", "idle_s"],
            "at least 1 second",
        );
        check(
            !self.pin || self.idle_s.is_none(),
            &["memory", "idle_s"],
            "a model with `pin` never leaves",
        );
    }
}
