use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::reading::Reading;

/// Device memory promised to models. A promise is kept from before the load, when nothing is used yet, to the unload; so
/// two models that load at the same time cannot both count on the same bytes.
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<Mutex<Promises>>);

/// By device, then by model.
type Promises = BTreeMap<String, BTreeMap<String, u64>>;

/// Bytes of one device for one model, until dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the memory back"]
pub struct Promise {
    budget: Budget,
    device: String,
    model: String,
    bytes: u64,
}

/// Why a model cannot have the memory that it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    #[error("there is no device `{device}`; there are {known}")]
    Unknown { device: String, known: String },
    #[error(
        "model `{model}` needs {needed} MiB of device `{device}`, which has {free} MiB free, {promised} MiB of its \
         {total} MiB promised to other models; unload a model or lower its budget"
    )]
    Full {
        model: String,
        device: String,
        needed: u64,
        free: u64,
        promised: u64,
        total: u64,
    },
}

const MIB: u64 = 1 << 20;

/// Working memory of a call that nobody planned: cuDNN's workspaces default to 32 MiB an operator, and several run.
const FREE_MIN: u64 = 256 << 20;

impl Budget {
    /// Promises `bytes` of a device (or MIG partition) to a model: no more than is free now, and all promises together
    /// no more than there is.
    pub fn promise(
        &self,
        reading: &Reading,
        (device, model): (&str, &str),
        bytes: u64,
    ) -> Result<Promise, Shortage> {
        let Some(memory) = reading.memory(device) else {
            let places: Vec<String> = reading.places().map(|uuid| format!("`{uuid}`")).collect();
            return Err(Shortage::Unknown {
                device: device.to_owned(),
                known: if places.is_empty() {
                    "none".to_owned()
                } else {
                    places.join(", ")
                },
            });
        };
        let mut promises = self.0.lock();
        let models = promises.entry(device.to_owned()).or_default();
        let promised: u64 = models.values().sum();
        if bytes > memory.free || promised.saturating_add(bytes) > memory.total {
            return Err(Shortage::Full {
                model: model.to_owned(),
                device: device.to_owned(),
                needed: bytes.div_ceil(MIB),
                free: memory.free / MIB,
                promised: promised / MIB,
                total: memory.total / MIB,
            });
        }
        // A model's next version is promised its own while the live one keeps what it has.
        *models.entry(model.to_owned()).or_default() += bytes;
        Ok(Promise {
            budget: self.clone(),
            device: device.to_owned(),
            model: model.to_owned(),
            bytes,
        })
    }

    /// Why models on the devices cannot be relied on now; none when they can, or when no model has a device. A device that
    /// somebody else has filled fails the next call that needs working memory.
    pub fn strain(&self, reading: &Reading) -> Option<String> {
        let promises = self.0.lock();
        promises
            .keys()
            .find_map(|device| match reading.memory(device) {
                None => Some(format!("device `{device}` does not answer")),
                Some(memory) if memory.free < FREE_MIN => Some(format!(
                    "device `{device}` has {} MiB free, models need {} to work in",
                    memory.free / MIB,
                    FREE_MIN / MIB
                )),
                Some(_) => None,
            })
    }

    /// Bytes promised of one device.
    pub fn promised(&self, device: &str) -> u64 {
        let promises = self.0.lock();
        promises.get(device).map_or(0, |all| all.values().sum())
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut promises = self.budget.0.lock();
        let Some(models) = promises.get_mut(&self.device) else {
            return;
        };
        if let Some(held) = models.get_mut(&self.model) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                models.remove(&self.model);
            }
        }
        if models.is_empty() {
            promises.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Gpu, Memory};

    fn reading(free: u64) -> Reading {
        Reading {
            gpus: vec![Gpu {
                uuid: "GPU-1".to_owned(),
                memory: Memory {
                    total: 8 << 30,
                    used: (8 << 30) - free,
                    free,
                },
                ..Gpu::default()
            }],
            ..Reading::default()
        }
    }

    #[test]
    fn promises_are_kept_although_nothing_is_used_yet_and_given_back() {
        let budget = Budget::default();
        let idle = reading(8 << 30);
        let first = budget
            .promise(&idle, ("GPU-1", "a"), 5 << 30)
            .expect("fits");
        let refused = budget.promise(&idle, ("GPU-1", "b"), 4 << 30);
        let message = refused.expect_err("does not fit").to_string();
        assert!(
            message.starts_with(
                "model `b` needs 4096 MiB of device `GPU-1`, which has 8192 MiB free, 5120 MiB of its 8192 MiB promised"
            ),
            "{message}"
        );
        let second = budget
            .promise(&idle, ("GPU-1", "b"), 3 << 30)
            .expect("fits");
        assert_eq!(budget.promised("GPU-1"), 8 << 30);
        assert_eq!(budget.strain(&idle), None);
        let said = |reading| budget.strain(&reading).unwrap_or_default();
        assert!(said(reading(100 << 20)).ends_with("has 100 MiB free, models need 256 to work in"));
        assert_eq!(said(Reading::default()), "device `GPU-1` does not answer");
        drop(first);
        drop(second);
        assert_eq!(budget.strain(&Reading::default()), None);
        assert_eq!(budget.promised("GPU-1"), 0);
    }

    #[test]
    fn what_others_use_cannot_be_promised() {
        let budget = Budget::default();
        let busy = reading(1 << 30);
        assert!(matches!(
            budget.promise(&busy, ("GPU-1", "a"), 2 << 30),
            Err(Shortage::Full { free: 1024, .. })
        ));
        assert_eq!(
            budget.promise(&busy, ("GPU-2", "a"), 1).err(),
            Some(Shortage::Unknown {
                device: "GPU-2".to_owned(),
                known: "`GPU-1`".to_owned()
            })
        );
    }
}
