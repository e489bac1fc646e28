//! The GPUs of this machine: what they say, and who was promised what of them.

use std::sync::Arc;

use device::{Budget, Budgeted, Monitor, Nvml, Probe, Reading};
use runtime::engine::Engine;
use telemetry::metrics::Registry;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gpus {
    monitor: Monitor,
    budget: Budget,
}

impl Gpus {
    pub(super) fn watch(registry: &Registry) -> std::io::Result<Self> {
        Ok(Self {
            monitor: Monitor::start(probe(), registry)?,
            budget: Budget::default(),
        })
    }

    /// The engine, which promises a model its device memory before it loads.
    pub(super) fn budgeted(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        let (monitor, budget) = (self.monitor.clone(), self.budget.clone());
        Arc::new(Budgeted::new(engine, monitor, budget))
    }

    /// Devices that are not divided, as jobs want them.
    pub(super) fn whole(&self) -> Vec<jobs::local::Gpu> {
        let reading = self.monitor.latest();
        let whole = reading.gpus.iter().filter(|gpu| gpu.partitions.is_none());
        whole
            .map(|gpu| jobs::local::Gpu {
                uuid: gpu.uuid.clone(),
                model: gpu.name.trim_start_matches("NVIDIA ").to_owned(),
                memory_mib: u32::try_from(gpu.memory.total >> 20).unwrap_or(u32::MAX),
            })
            .collect()
    }

    /// The devices that a configuration may name.
    pub(super) fn usable(&self) -> Vec<i32> {
        usable(&self.monitor.latest())
    }

    /// Whether models on GPUs can be relied on; true without any.
    pub(super) fn ready(&self) -> bool {
        let strain = self.budget.strain(&self.monitor.latest());
        if let Some(reason) = &strain {
            tracing::debug!(reason, "not ready");
        }
        strain.is_none()
    }
}

/// Triton's minimum, whose rule and words the configuration's check has.
const CAPABILITY_MIN: (u32, u32) = (6, 0);

/// The indices of devices that are new enough.
fn usable(reading: &Reading) -> Vec<i32> {
    let enough = reading.gpus.iter().filter(|gpu| {
        gpu.compute_capability
            .is_some_and(|found| found >= CAPABILITY_MIN)
    });
    enough
        .filter_map(|gpu| i32::try_from(gpu.index).ok())
        .collect()
}

/// What a configuration may name on this machine, for a command that runs without a node.
pub(crate) fn usable_here() -> Vec<i32> {
    let reading = probe().and_then(|probe| probe.read().ok());
    reading.map(|reading| usable(&reading)).unwrap_or_default()
}

/// The NVIDIA driver's library, if this machine has one.
fn probe() -> Option<Box<dyn Probe>> {
    match Nvml::find(None) {
        Ok(nvml) => Some(Box::new(nvml)),
        Err(error @ device::Error::Missing(_)) => {
            tracing::debug!(reason = base::chain(&error), "no GPUs to watch");
            None
        }
        Err(error) => {
            tracing::warn!(reason = base::chain(&error), "the GPUs cannot be watched");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use device::Gpu;

    use super::*;

    #[test]
    fn old_devices_are_not_for_models() {
        let gpu = |index, compute_capability| Gpu {
            index,
            compute_capability,
            ..Gpu::default()
        };
        let reading = Reading {
            gpus: vec![
                gpu(0, Some((5, 2))),
                gpu(1, Some((6, 0))),
                gpu(2, None),
                gpu(3, Some((8, 9))),
            ],
            ..Reading::default()
        };
        assert_eq!(usable(&reading), [1, 3]);
    }
}
