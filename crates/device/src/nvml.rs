//! NVML through its wrapper: the library is looked for at run time, and a machine without one costs nothing.

use std::ffi::OsStr;

use nvml_wrapper::Device;
use nvml_wrapper::Nvml as Library;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

use crate::probe::{Error, Probe};
use crate::reading::{Gpu, Memory, Partition, Reading};

/// The name with the version: the one without comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// NVML's answer for a MIG mode that is on.
const MIG_ENABLED: u32 = 1;

/// The driver's own management library.
#[derive(Debug)]
pub struct Nvml(Library);

impl Nvml {
    /// Loads the library, by the loader's rules or from `path`, and greets the driver.
    pub fn find(path: Option<&OsStr>) -> Result<Self, Error> {
        Library::builder()
            .lib_path(path.unwrap_or_else(|| OsStr::new(LIBRARY)))
            .init()
            .map(Self)
            .map_err(|error| match error {
                NvmlError::LibloadingError(error) => Error::Missing(error.to_string()),
                other => Error::Failed(other.to_string()),
            })
    }
}

impl Probe for Nvml {
    fn read(&self) -> Result<Reading, Error> {
        let failed = |error: NvmlError| Error::Failed(error.to_string());
        let count = self.0.device_count().map_err(failed)?;
        let gpus = (0..count)
            .map(|index| gpu(&self.0.device_by_index(index)?, index))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        Ok(Reading {
            driver: self.0.sys_driver_version().map_err(failed)?,
            cuda: self.0.sys_cuda_driver_version().ok().and_then(cuda),
            gpus,
        })
    }
}

/// CUDA writes 12.4 as 12040.
fn cuda(version: i32) -> Option<(u32, u32)> {
    let version = u32::try_from(version).ok()?;
    Some((version / 1000, version % 1000 / 10))
}

/// Name, uuid and memory must be told; of the rest, consumer cards and virtual ones tell some.
fn gpu(device: &Device<'_>, index: u32) -> Result<Gpu, NvmlError> {
    let milliwatts = |told: Result<u32, NvmlError>| told.ok().map(|power| f64::from(power) / 1e3);
    let capability = device.cuda_compute_capability().ok();
    Ok(Gpu {
        index,
        uuid: device.uuid()?,
        name: device.name()?,
        memory: memory(device)?,
        utilization: device
            .utilization_rates()
            .ok()
            .map(|rates| f64::from(rates.gpu) / 100.0),
        power_watts: milliwatts(device.power_usage()),
        power_limit_watts: milliwatts(device.enforced_power_limit()),
        energy_joules: device.total_energy_consumption().ok().map(joules),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
        compute_capability: capability.and_then(|found| {
            let major = u32::try_from(found.major).ok()?;
            Some((major, u32::try_from(found.minor).ok()?))
        }),
        partitions: partitions(device)?,
    })
}

/// 2^53 mJ are 285 years at a kilowatt.
fn joules(millijoules: u64) -> f64 {
    millijoules as f64 / 1e3
}

fn memory(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let info = device.memory_info()?;
    Ok(Memory {
        total: info.total,
        used: info.used,
        free: info.free,
    })
}

fn partitions(device: &Device<'_>) -> Result<Option<Vec<Partition>>, NvmlError> {
    // An old driver or a device without MIG says so with an error.
    let enabled = device
        .mig_mode()
        .is_ok_and(|mode| mode.current == MIG_ENABLED);
    if !enabled {
        return Ok(None);
    }
    let places = device.mig_device_count()?;
    let mut found = Vec::new();
    for place in 0..places {
        match device.mig_device_by_index(place) {
            Ok(partition) => found.push(Partition {
                uuid: partition.uuid()?,
                name: partition.name()?,
                memory: memory(&partition)?,
            }),
            // Places are fixed, and not every one is taken.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests;
