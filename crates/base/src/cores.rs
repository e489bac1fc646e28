use std::num::NonZeroUsize;
use std::thread::available_parallelism;

/// How many compute threads this process may keep busy: the smaller of its CPU affinity and its cgroup quota.
///
/// The standard library reads both (`sched_getaffinity`, `cpu.max` or `cpu.cfs_quota_us`); a quota of 1.5 counts as 1.
pub fn core_budget() -> NonZeroUsize {
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
