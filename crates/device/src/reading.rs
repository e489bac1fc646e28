use serde::{Deserialize, Serialize};

/// All that was known of this machine's GPUs at one moment. What a device or driver does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The kernel driver, such as `550.54.15`.
    pub driver: String,
    /// The newest CUDA that the driver can run, major and minor.
    pub cuda: Option<(u32, u32)>,
    /// By NVML's index.
    pub gpus: Vec<Gpu>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    pub index: u32,
    /// Stable over restarts: `GPU-…`.
    pub uuid: String,
    pub name: String,
    pub memory: Memory,
    /// Part of the last sample period in which a kernel ran, 0 to 1.
    #[serde(default)]
    pub utilization: Option<f64>,
    #[serde(default)]
    pub power_watts: Option<f64>,
    #[serde(default)]
    pub power_limit_watts: Option<f64>,
    /// Since the driver was loaded.
    #[serde(default)]
    pub energy_joules: Option<f64>,
    #[serde(default)]
    pub temperature_celsius: Option<u32>,
    /// Major and minor.
    #[serde(default)]
    pub compute_capability: Option<(u32, u32)>,
    /// Present when MIG is on; then work goes to the partitions and not to the device.
    #[serde(default)]
    pub partitions: Option<Vec<Partition>>,
}

/// A MIG device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// `MIG-…`, as in `CUDA_VISIBLE_DEVICES`.
    pub uuid: String,
    /// Such as `NVIDIA A100-SXM4-40GB MIG 1g.5gb`.
    pub name: String,
    pub memory: Memory,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub total: u64,
    pub used: u64,
    pub free: u64,
}

impl Reading {
    /// The memory of a device or of a MIG partition, by its uuid.
    pub fn memory(&self, uuid: &str) -> Option<Memory> {
        self.gpus.iter().find_map(|gpu| {
            if gpu.uuid == uuid {
                return Some(gpu.memory);
            }
            let partition = gpu
                .partitions
                .iter()
                .flatten()
                .find(|partition| partition.uuid == uuid)?;
            Some(partition.memory)
        })
    }

    /// What a model can be placed on: whole devices, and the partitions of those that are divided.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.gpus.iter().flat_map(|gpu| {
            let whole = gpu.partitions.is_none().then_some(gpu.uuid.as_str());
            let parts = gpu.partitions.iter().flatten();
            whole
                .into_iter()
                .chain(parts.map(|part| part.uuid.as_str()))
        })
    }
}
