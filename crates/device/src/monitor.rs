use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use telemetry::metrics::Registry;

use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::reading::Reading;

/// Triton's `--metrics-interval-ms`.
const INTERVAL: Duration = Duration::from_secs(2);

/// The latest reading, kept up to date by one thread that ends with the last clone.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    latest: Mutex<Arc<Reading>>,
    metrics: Metrics,
}

impl Monitor {
    /// Registers the metrics; without a probe nothing is ever read, and no thread runs.
    pub fn start(probe: Option<Box<dyn Probe>>, registry: &Registry) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            latest: Mutex::default(),
            metrics: Metrics::register(registry),
        });
        if let Some(probe) = probe {
            // Once before anybody asks: models that load at start need to know what is free.
            shared.take(probe.as_ref());
            let weak = Arc::downgrade(&shared);
            std::thread::Builder::new()
                .name("gpu-monitor".to_owned())
                .spawn(move || watch(&weak, probe.as_ref()))?;
        }
        Ok(Self(shared))
    }

    /// At most one interval old; the default, without GPUs, when there is no probe.
    pub fn latest(&self) -> Arc<Reading> {
        Arc::clone(&self.0.latest.lock())
    }
}

fn watch(shared: &Weak<Shared>, probe: &dyn Probe) {
    loop {
        std::thread::park_timeout(INTERVAL);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.take(probe);
    }
}

impl Shared {
    /// A device that does not answer keeps its last figures out of the metrics: none are better than old ones.
    fn take(&self, probe: &dyn Probe) {
        let reading = probe.read().unwrap_or_else(|error| {
            tracing::warn!(
                reason = base::chain(&error),
                "the GPUs could not be asked; their figures are left out"
            );
            Reading::default()
        });
        self.metrics.show(&reading);
        *self.latest.lock() = Arc::new(reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Recording;

    const RECORDED: &str = include_str!("../recordings/a100-mig.json");

    #[test]
    fn metrics_say_what_the_devices_say_and_forget_what_is_gone() {
        let registry = Registry::new();
        let recording = Recording::from_json(RECORDED).expect("legal");
        let monitor = Monitor::start(None, &registry).expect("starts");
        monitor.0.take(&recording);
        let text = registry.encode();
        for line in [
            r#"nv_gpu_utilization{gpu_uuid="GPU-11111111-2222-3333-4444-555555555555"} 0.25"#,
            r#"nv_gpu_power_usage{gpu_uuid="GPU-11111111-2222-3333-4444-555555555555"} 61.5"#,
            r#"nv_gpu_memory_total_bytes{gpu_uuid="MIG-aaaaaaaa-0000-0000-0000-000000000001"} 5100273664"#,
            r#"kapok_gpu_temperature_celsius{gpu_uuid="GPU-66666666-7777-8888-9999-000000000000"} 40.0"#,
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert_eq!(monitor.latest().places().count(), 3);
        // In the second reading one device has fallen off the bus.
        monitor.0.take(&recording);
        assert!(!registry.encode().contains("GPU-66666666"));
        assert_eq!(monitor.latest().places().count(), 2);
    }

    #[test]
    fn devices_that_stop_answering_leave_no_old_figures() {
        let registry = Registry::new();
        let monitor = Monitor::start(None, &registry).expect("starts");
        monitor
            .0
            .take(&Recording::from_json(RECORDED).expect("legal"));
        monitor.0.take(&Recording::new(Vec::new()));
        assert!(!registry.encode().contains("gpu_uuid="));
        assert_eq!(*monitor.latest(), Reading::default());
    }

    #[test]
    fn the_thread_ends_with_the_monitor() {
        let recording = Recording::from_json(RECORDED).expect("legal");
        let monitor = Monitor::start(Some(Box::new(recording)), &Registry::new()).expect("starts");
        assert_eq!(monitor.latest().gpus.len(), 2);
        let weak = Arc::downgrade(&monitor.0);
        drop(monitor);
        assert!(weak.upgrade().is_none());
    }
}
