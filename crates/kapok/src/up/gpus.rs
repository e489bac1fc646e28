//! The GPUs of this machine: what they say, and who was promised what of them.

use std::sync::Arc;

use device::{Budget, Budgeted, Monitor, Nvml, Probe};
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

    /// Whether models on GPUs can be relied on; true without any.
    pub(super) fn ready(&self) -> bool {
        let strain = self.budget.strain(&self.monitor.latest());
        if let Some(reason) = &strain {
            tracing::debug!(reason, "not ready");
        }
        strain.is_none()
    }
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
