//! An engine whose models are promised the device memory that they will use, before they use it.

use std::path::Path;
use std::sync::Arc;

use protocol::oip::proto::model_instance_group::Kind;
use runtime::engine::{Engine, EngineError, LoadOptions, Loaded, Precision, Source};

use crate::budget::{Budget, Promise};
use crate::monitor::Monitor;
use crate::reading::Reading;

/// Weights twice (the file's, and the engine's own layout) and working memory: a guess that `[memory] device_mb` in the
/// model's sidecar replaces.
const FILE_FACTOR: u64 = 3;

/// CUDA's own context and libraries take about this much for the first model.
const FLOOR_BYTES: u64 = 512 << 20;

/// `engine`, with a budget in front of it.
#[derive(Debug)]
pub struct Budgeted {
    engine: Arc<dyn Engine>,
    monitor: Monitor,
    budget: Budget,
}

impl Budgeted {
    pub fn new(engine: Arc<dyn Engine>, monitor: Monitor, budget: Budget) -> Self {
        Self {
            engine,
            monitor,
            budget,
        }
    }

    fn promises(&self, source: &Source) -> Result<Vec<Promise>, EngineError> {
        let reading = self.monitor.latest();
        let bytes = needed(source);
        places(source, &reading)
            .into_iter()
            .map(|device| {
                self.budget
                    .promise(&reading, (&device, &source.model), bytes)
                    .map_err(|shortage| EngineError::unsupported(self.name(), shortage.to_string()))
            })
            .collect()
    }
}

/// The devices that a configuration asks for, by uuid: those of its instance groups of KIND_GPU, the first device when a
/// group names none. On a divided device it is the first partition.
fn places(source: &Source, reading: &Reading) -> Vec<String> {
    let mut places = Vec::new();
    for group in &source.config.instance_group {
        if group.kind() != Kind::Gpu {
            continue;
        }
        let indices: &[i32] = if group.gpus.is_empty() {
            &[0]
        } else {
            &group.gpus
        };
        for index in indices {
            let device = u32::try_from(*index).ok().and_then(|index| {
                let gpu = reading.gpus.iter().find(|gpu| gpu.index == index)?;
                let part = gpu.partitions.iter().flatten().next();
                Some(part.map_or(&gpu.uuid, |part| &part.uuid).clone())
            });
            let device = device.unwrap_or_else(|| index.to_string());
            if !places.contains(&device) {
                places.push(device);
            }
        }
    }
    places
}

fn needed(source: &Source) -> u64 {
    if let Some(megabytes) = source.sidecar.memory.device_mb {
        return megabytes << 20;
    }
    let file = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    FLOOR_BYTES.max(file(&source.path).saturating_mul(FILE_FACTOR))
}

impl Engine for Budgeted {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn version(&self) -> String {
        self.engine.version()
    }

    fn accepts(&self, source: &Source) -> bool {
        self.engine.accepts(source)
    }

    fn precisions(&self) -> &[Precision] {
        self.engine.precisions()
    }

    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let promises = self.promises(source)?;
        let loaded = self.engine.load(source, options)?;
        Ok(if promises.is_empty() {
            loaded
        } else {
            runtime::engine::holding(loaded, promises)
        })
    }
}

#[cfg(test)]
mod tests;
