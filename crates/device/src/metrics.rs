use telemetry::metrics::{Family, Gauge, Registry};

use crate::reading::{Gpu, Memory, Reading};

type Labels = [(&'static str, String); 1];
type Floats = Family<Labels, Gauge<f64, AtomicF64>>;
type Bytes = Family<Labels, Gauge>;

use std::sync::atomic::AtomicU64 as AtomicF64;

/// Triton's gauges, by `gpu_uuid`; a MIG partition has memory of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    utilization: Floats,
    memory_total: Bytes,
    memory_used: Bytes,
    power_usage: Floats,
    power_limit: Floats,
    energy: Floats,
    temperature: Floats,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        let floats = [
            (
                "nv_gpu_utilization",
                "Part of the last sample period in which a kernel ran, 0 to 1",
                &metrics.utilization,
            ),
            (
                "nv_gpu_power_usage",
                "Power a GPU draws, watts",
                &metrics.power_usage,
            ),
            (
                "nv_gpu_power_limit",
                "Power a GPU may draw, watts",
                &metrics.power_limit,
            ),
            (
                "nv_energy_consumption",
                "Energy a GPU has used since its driver was loaded, joules",
                &metrics.energy,
            ),
            (
                "kapok_gpu_temperature_celsius",
                "Temperature of a GPU",
                &metrics.temperature,
            ),
        ];
        for (name, help, family) in floats {
            registry.register(name, help, family.clone());
        }
        let bytes = [
            (
                "nv_gpu_memory_total_bytes",
                "Memory of a GPU or of a MIG partition",
                &metrics.memory_total,
            ),
            (
                "nv_gpu_memory_used_bytes",
                "Used memory of a GPU or of a MIG partition",
                &metrics.memory_used,
            ),
        ];
        for (name, help, family) in bytes {
            registry.register(name, help, family.clone());
        }
        metrics
    }

    /// What a device does not tell has no line, and a device that is gone has none any more.
    pub(crate) fn show(&self, reading: &Reading) {
        for family in [
            &self.utilization,
            &self.power_usage,
            &self.power_limit,
            &self.energy,
            &self.temperature,
        ] {
            family.clear();
        }
        self.memory_total.clear();
        self.memory_used.clear();
        for gpu in &reading.gpus {
            self.show_gpu(gpu);
            self.show_memory(&gpu.uuid, gpu.memory);
            for partition in gpu.partitions.iter().flatten() {
                self.show_memory(&partition.uuid, partition.memory);
            }
        }
    }

    fn show_gpu(&self, gpu: &Gpu) {
        let temperature = gpu.temperature_celsius.map(f64::from);
        for (family, value) in [
            (&self.utilization, gpu.utilization),
            (&self.power_usage, gpu.power_watts),
            (&self.power_limit, gpu.power_limit_watts),
            (&self.energy, gpu.energy_joules),
            (&self.temperature, temperature),
        ] {
            if let Some(value) = value {
                family.get_or_create_owned(&labels(&gpu.uuid)).set(value);
            }
        }
    }

    fn show_memory(&self, uuid: &str, memory: Memory) {
        for (family, bytes) in [
            (&self.memory_total, memory.total),
            (&self.memory_used, memory.used),
        ] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            family.get_or_create_owned(&labels(uuid)).set(bytes);
        }
    }
}

fn labels(uuid: &str) -> Labels {
    [("gpu_uuid", uuid.to_owned())]
}
