//! How much memory groups of processes hold, as Linux tells it; elsewhere nothing is known.

use std::collections::BTreeMap;
use std::fs;

/// Resident bytes by process group, in one pass over all processes. A page that several of them share counts for each.
/// Reads a file for every process of the machine: off the executor's threads.
pub fn resident() -> BTreeMap<i32, u64> {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut groups = BTreeMap::new();
    for (_, stat) in stats() {
        *groups.entry(stat.group).or_default() += stat.resident_pages * page;
    }
    groups
}

/// Bytes of one group, with a shared page counted in part for each who shares it; none where the system does not tell.
/// Slower by far: it walks page tables.
pub fn proportional(group: i32) -> Option<u64> {
    let mut sum = None;
    for (pid, stat) in stats() {
        if stat.group != group {
            continue;
        }
        // One that has just ended holds nothing.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            continue;
        };
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        *sum.get_or_insert(0) += kib << 10;
    }
    sum
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: i32,
    resident_pages: u64,
}

fn stats() -> impl Iterator<Item = (i32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, Stat::read(&text)?))
    })
}

impl Stat {
    /// proc_pid_stat(5): the name in parentheses may hold anything, also parentheses and spaces.
    fn read(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        // The fields from the third on: the process group is the fifth, the resident set the twenty-fourth.
        let group = fields.nth(2)?.parse().ok()?;
        let resident_pages = fields.nth(18)?.parse().ok()?;
        Some(Self {
            group,
            resident_pages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_numbers() {
        let rest = "S 1 77 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 512 22 23";
        for name in ["sh", "a) S 1 99 (b", ""] {
            let read = Stat::read(&format!("42 ({name}) {rest}"));
            let expected = Stat {
                group: 77,
                resident_pages: 512,
            };
            assert_eq!(read, Some(expected), "{name}");
        }
        for broken in ["", "42 (sh)", "42 (sh) S 1 x", "42 (sh) S 1 77 3"] {
            assert_eq!(Stat::read(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_holds_some_memory() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        let resident = resident().get(&group).copied().unwrap_or_default();
        assert!(resident > 1 << 20, "{resident}");
        // Where `smaps_rollup` is missing nothing is said.
        assert!(proportional(group).is_none_or(|bytes| bytes > 1 << 16));
    }
}
