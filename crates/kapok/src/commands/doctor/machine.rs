//! Cores, memory, ports, files.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use rustix::process::{Resource, getrlimit};

use super::{Check, Verdict};
use crate::memory::{cgroup_limit, meminfo};

/// One connection on each side of a relayed request, twice the default of 1,024, and room for files.
const OPEN_FILES_WANTED: u64 = 8192;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![cores(), memory(), open_files()];
    checks.extend(
        [(8000, "public port"), (8080, "admin port")].map(|(port, what)| self::port(port, what)),
    );
    checks
}

fn cores() -> Check {
    let budget = base::core_budget().get();
    let online = fs::read_to_string("/proc/cpuinfo")
        .map(|text| {
            text.lines()
                .filter(|line| line.starts_with("processor"))
                .count()
        })
        .unwrap_or(budget);
    let found = if online > budget {
        format!("{budget} of {online} (cgroup quota or affinity); compute threads follow it")
    } else {
        format!("{budget}; compute threads follow it")
    };
    Check::new("cores", Verdict::Ok, found)
}

fn memory() -> Check {
    let Some(available) = meminfo("MemAvailable:") else {
        return Check::new(
            "memory",
            Verdict::Warn,
            "unknown: /proc/meminfo cannot be read",
        )
        .fix("nothing to do outside Linux");
    };
    let total = meminfo("MemTotal:").unwrap_or(available);
    let cgroup = cgroup_limit().map_or_else(String::new, |bytes| {
        format!(", cgroup limit {}", gib(bytes))
    });
    let found = format!("{} free of {}{cgroup}", gib(available), gib(total));
    if available < 512 << 20 {
        return Check::new("memory", Verdict::Warn, found)
            .fix("small models need 100 to 300 MB each: stop something, or give more memory");
    }
    Check::new("memory", Verdict::Ok, found)
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// `kapok up` raises the soft limit by itself, so the hard one counts.
fn open_files() -> Check {
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < OPEN_FILES_WANTED => {
            Check::new("open files", Verdict::Warn, format!("at most {limit}")).fix(format!(
                "raise the hard limit to {OPEN_FILES_WANTED}: every client and every upstream connection is one"
            ))
        }
        Some(limit) => Check::new("open files", Verdict::Ok, format!("at most {limit}")),
        None => Check::new("open files", Verdict::Ok, "no limit"),
    }
}

fn port(port: u16, what: &'static str) -> Check {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_free) => Check::new(what, Verdict::Ok, format!("{port} is free")),
        Err(error) => Check::new(what, Verdict::Warn, format!("{port}: {error}")).fix(format!(
            "if that is not kapok itself: kapok up --{} 127.0.0.1:{}",
            if port == 8000 { "listen" } else { "admin" },
            port + 100
        )),
    }
}
