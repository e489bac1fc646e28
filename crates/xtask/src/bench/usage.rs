//! CPU time and memory from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::workspace::poll_every;

/// `USER_HZ`: what /proc counts CPU time in, 100 on every Linux since 2.6
/// (<https://man7.org/linux/man-pages/man7/time.7.html>).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds used so far, in user and kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    /// Of a process and all below it.
    pub(super) tree: f64,
    /// Of the whole machine, whoever used it.
    pub(super) machine: f64,
    /// Of this program and all below it: who is measured, who is compared, who makes the load.
    bench: f64,
}

impl Cpu {
    pub(super) fn now(pid: u32) -> Result<Self> {
        Ok(Self {
            tree: tree(pid)?,
            machine: machine()?,
            bench: tree(std::process::id())?,
        })
    }

    /// The same once the machine has little to do: a server whose callers left works off what it had begun, for seconds,
    /// and takes that time from whoever is measured next. Who does not come to rest in time is measured with the others.
    pub(super) fn at_rest(pid: u32) -> Result<Self> {
        const LOOK: Duration = Duration::from_millis(200);
        const PATIENCE: Duration = Duration::from_secs(15);
        const BUSY_MAX: f64 = 0.1;
        let mut before = None;
        poll_every(LOOK, PATIENCE, || {
            let now = machine().ok()?;
            let busy = now - before.replace(now)?;
            (busy <= BUSY_MAX * LOOK.as_secs_f64()).then_some(())
        });
        Self::now(pid)
    }

    /// What others took of the machine since then.
    pub(super) fn others_since(&self, before: &Self) -> f64 {
        let machine = self.machine - before.machine;
        (machine - (self.bench - before.bench)).max(0.0)
    }
}

fn tree(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The program's name is in parentheses and may hold anything; the fields after it are plain. The first is number 3.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc stat")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|text| text.parse::<f64>().ok())
    };
    // utime, stime, and those of children that ended.
    let own: f64 = (14..=17).filter_map(ticks).sum();
    let mut seconds = own / TICKS_PER_SECOND;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|id| id.parse().ok()) {
            seconds += tree(child)?;
        }
    }
    Ok(seconds)
}

fn machine() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|t| t.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal: all but idle and iowait.
    let busy: f64 = ticks
        .iter()
        .take(8)
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .map(|(_, ticks)| ticks)
        .sum();
    Ok(busy / TICKS_PER_SECOND)
}

/// Resident memory of one process, in megabytes (10⁶).
pub(super) fn resident_mb(pid: u32) -> Result<f64> {
    memory_mb(pid, "VmRSS:")
}

/// The most that it ever was.
pub(super) fn peak_mb(pid: u32) -> Result<f64> {
    memory_mb(pid, "VmHWM:")
}

fn memory_mb(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|text| text.trim().parse::<f64>().ok())
        .with_context(|| format!("no {field} in /proc status"))?;
    Ok(kilobytes * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let cpu = Cpu::now(pid).unwrap();
        assert!(cpu.tree >= 0.0 && cpu.machine >= cpu.tree);
        let later = |machine, bench| Cpu {
            machine: cpu.machine + machine,
            bench: cpu.bench + bench,
            ..cpu
        };
        assert!((later(5.0, 3.0).others_since(&cpu) - 2.0).abs() < 1e-6);
        // Ticks of both are counted apart.
        assert_eq!(later(3.0, 3.01).others_since(&cpu), 0.0);
        let resident = resident_mb(pid).unwrap();
        assert!(resident > 0.5 && peak_mb(pid).unwrap() >= resident);
        // Above the kernel's largest process id.
        assert!(Cpu::now(u32::MAX).is_err());
    }
}
