use serde::{Deserialize, Serialize};

/// Where a model's engine runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In kapok's own process.
    #[default]
    Thread,
    /// In a process of its own: a crash costs this model's calls in flight and nothing else, unloading gives all its
    /// memory back, and each tensor is copied once more on either side.
    Process,
}
