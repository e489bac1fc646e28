//! How much memory there is, in bytes.

use std::fs;

/// A field of /proc/meminfo, such as `MemTotal:`.
pub(crate) fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// What the cgroup allows, if it limits anything.
pub(crate) fn cgroup_limit() -> Option<u64> {
    let text = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?;
    text.trim().parse().ok()
}
