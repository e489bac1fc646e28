//! Other processes, as the kernel shows them.

use std::path::PathBuf;
use std::process::Command;

/// Whether a process of this id is there and not a zombie.
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

/// Sends a signal by its name; `kill` is on every Unix, and this room has no unsafe.
pub fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
}

pub fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux");
    let pid_of = |path: PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    processes
        .flatten()
        .filter_map(|entry| pid_of(entry.path()))
        .filter(|pid| parent_of(*pid) == Some(parent) && alive(*pid))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid …`; the name may hold anything, so count from its end.
    stat.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
