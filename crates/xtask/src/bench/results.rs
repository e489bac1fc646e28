//! The table people read and the file that is kept.

use std::fs;
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::samples::{Compare, Sample, Summary, summarise};
use crate::process::output;
use crate::workspace::{root, wall};

/// One bench, measured.
pub(super) struct Outcome {
    pub(super) name: &'static str,
    /// What was done, so that somebody else can do it.
    pub(super) method: String,
    pub(super) samples: Vec<Sample>,
    pub(super) compare: Option<Compare>,
    /// Goals or figures to hold these against, in words.
    pub(super) reference: &'static str,
}

impl Outcome {
    pub(super) fn print(&self) {
        println!("\n{}: {}", self.name, self.method);
        let mut case = None;
        for summary in summarise(&self.samples, self.compare) {
            if case.as_ref() != Some(&summary.case) {
                println!("  {}", summary.case);
            }
            println!("    {:16} {}", summary.target, self.line(&summary));
            case = Some(summary.case);
        }
        println!("  for comparison: {}", self.reference);
    }

    fn line(&self, summary: &Summary) -> String {
        let figures = summary.figures.iter().map(|(name, spread)| {
            let [median, min, max] = [spread.median, spread.min, spread.max].map(short);
            format!("{name} {median} [{min}..{max}]")
        });
        let ratio = self.compare.zip(summary.ratio).map(|(compare, ratio)| {
            format!(
                "{} × {}'s {}",
                short(ratio.median),
                compare.baseline,
                compare.figure
            )
        });
        figures.chain(ratio).collect::<Vec<_>>().join("  ")
    }

    /// `bench/results/<date>-<name>.json`; a second run on a day replaces the first.
    pub(super) fn save(&self, profile: &str) -> Result<()> {
        let dir = root().join("bench/results");
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}-{}.json", date()?, self.name));
        let first = |program: &str, args: &[&str]| {
            output(Command::new(program).args(args).current_dir(root()))
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        let document = json!({
            "name": self.name,
            "method": self.method,
            "reference": self.reference,
            "commit": first("git", &["describe", "--always", "--dirty"]),
            "command": command_line(),
            "profile": profile,
            "toolchain": first("rustc", &["--version"]),
            "machine": machine(),
            "compare": self.compare,
            "summary": summarise(&self.samples, self.compare),
            "samples": self.samples,
        });
        fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")?;
        println!("  written to {}", path.display());
        Ok(())
    }
}

/// The tool's arguments as typed; the program's own path says nothing to others.
fn command_line() -> String {
    let args: Vec<_> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", args.join(" "))
}

fn machine() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, name)| name.trim().to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": kernel.trim(),
        "memory": memory.trim_start_matches("MemTotal:").trim(),
        "load_after": load.trim(),
    })
}

/// Today in UTC, `YYYY-MM-DD`.
fn date() -> Result<String> {
    let days = wall().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    Ok(civil(i64::try_from(days).context("a date far away")?))
}

/// Days since 1970 as a date (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn civil(days: i64) -> String {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Three figures are more than these measurements resolve.
fn short(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_778, "2026-11-21"),
        ] {
            assert_eq!(civil(days), date);
        }
    }
}
