//! Requests and limits, from which Kubernetes derives the QoS class and the device plugin the devices.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use protocol::resource::{GpuSharing, ResourcesSpec};
use scheduler::queue::Level;
use scheduler::queue::qos::{Class, Promise};

type Amounts = BTreeMap<String, Quantity>;

const MIB: u64 = 1 << 20;

/// From this level on all of the memory is requested.
const WHOLE_MEMORY: u8 = 3;

/// Guaranteed means that requests are limits; burstable that memory is limited and processors are not, for an idle core
/// helps nobody; best effort that there is neither. Devices count for no class.
pub(super) fn requirements(
    wanted: &ResourcesSpec,
    (level, promise): (Level, &Promise),
    sharing: GpuSharing,
) -> ResourceRequirements {
    let cpu = u64::from(wanted.cpu.milli());
    let memory = wanted.memory.bytes();
    let mut requests = Amounts::new();
    let mut limits = Amounts::new();
    match promise.class {
        Class::Guaranteed => {
            put(&mut requests, "cpu", milli(cpu));
            put(&mut requests, "memory", bytes(memory));
            put(&mut limits, "cpu", milli(cpu));
            put(&mut limits, "memory", bytes(memory));
        }
        Class::Burstable => {
            put(&mut requests, "cpu", milli(part(cpu, promise)));
            // Who uses more memory than was requested is killed first when a node runs short.
            let whole = level.number() >= WHOLE_MEMORY;
            let requested = if whole { memory } else { part(memory, promise) };
            put(&mut requests, "memory", bytes(requested));
            put(&mut limits, "memory", bytes(memory));
        }
        Class::BestEffort => {}
    }
    limits.extend(devices(wanted, sharing));
    let given = |amounts: Amounts| (!amounts.is_empty()).then_some(amounts);
    ResourceRequirements {
        requests: given(requests),
        limits: given(limits),
        ..ResourceRequirements::default()
    }
}

/// What is reserved of an amount; headroom is a matter of devices.
fn part(amount: u64, promise: &Promise) -> u64 {
    let percent = u64::from(promise.reserved_percent.min(100));
    (amount.saturating_mul(percent) / 100).max(1)
}

/// The device plugin's names. Whole numbers, and requests are limits by themselves.
fn devices(wanted: &ResourcesSpec, sharing: GpuSharing) -> Amounts {
    let mut amounts = Amounts::new();
    if let Some(profile) = &wanted.mig_profile {
        // A resource's name has no `+`: NVIDIA's plugin writes `1g.10gb+me` as `mig-1g.10gb.me`.
        let name = format!("nvidia.com/mig-{}", profile.replace('+', "."));
        put(&mut amounts, &name, "1".to_owned());
        return amounts;
    }
    if wanted.gpu_count() == 0 {
        return amounts;
    }
    if wanted.gpu_share.is_none() {
        put(&mut amounts, "nvidia.com/gpu", wanted.gpus.to_string());
        return amounts;
    }
    match sharing {
        // One of the replicas that NVIDIA's plugin announces of a GPU that it shares by time.
        GpuSharing::TimeSlicing => {
            put(&mut amounts, "nvidia.com/gpu.shared", "1".to_owned());
        }
        GpuSharing::Hami => {
            put(&mut amounts, "nvidia.com/gpu", "1".to_owned());
            let cores = wanted.gpu_milli().div_ceil(10);
            put(&mut amounts, "nvidia.com/gpucores", cores.to_string());
            if let Some(memory) = wanted.device_memory {
                let mebibytes = memory.bytes().div_ceil(MIB);
                put(&mut amounts, "nvidia.com/gpumem", mebibytes.to_string());
            }
        }
    }
    amounts
}

fn put(amounts: &mut Amounts, name: &str, amount: String) {
    amounts.insert(name.to_owned(), Quantity(amount));
}

fn milli(amount: u64) -> String {
    match amount % 1000 {
        0 => (amount / 1000).to_string(),
        _ => format!("{amount}m"),
    }
}

fn bytes(amount: u64) -> String {
    match amount % MIB {
        0 => format!("{}Mi", amount / MIB),
        _ => amount.to_string(),
    }
}
