//! What somebody wants placed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A whole GPU.
pub const MILLI: u16 = 1_000;

/// CPU, memory and GPUs, and where they may be. Equal requests are one *type* to the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Request {
    pub cpu_milli: u32,
    pub memory_mib: u32,
    /// How many; 0 for a request that needs none.
    pub gpus: u8,
    /// Of each of them, 1 to 1000; less than 1000 only with one GPU.
    pub gpu_milli: u16,
    /// A MIG profile, `1g.10gb`: one instance on one GPU (`gpus` is 1), of which nothing else is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<String>,
    /// Any of these; all when empty, and when no GPU is asked for.
    pub models: BTreeSet<String>,
    /// One of these; all when empty.
    pub regions: BTreeSet<String>,
    /// Labels that the node must carry.
    pub labels: BTreeMap<String, String>,
}

impl Request {
    /// Of all its GPUs together.
    pub fn total_gpu_milli(&self) -> u32 {
        u32::from(self.gpus) * u32::from(self.gpu_milli)
    }

    /// A part of one GPU.
    pub fn shares(&self) -> bool {
        self.gpus == 1 && self.gpu_milli < MILLI && self.mig.is_none()
    }
}
