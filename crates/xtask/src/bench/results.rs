//! The table people read and the file that is kept.

use std::fs;
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::Result;
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

/// What surrounds a measurement and may explain it. Taken before: saved results change the checkout.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// With `-dirty` when files that git knows differ from it.
    commit: String,
    toolchain: String,
    load_before: String,
}

impl Surroundings {
    pub(super) fn now() -> Self {
        let said = |program: &str, args: &[&str]| {
            output(Command::new(program).args(args).current_dir(root()))
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        Self {
            commit: said("git", &["describe", "--always", "--dirty"]),
            toolchain: said("rustc", &["--version"]),
            load_before: load(),
        }
    }

    /// The same checkout, before the next bench.
    pub(super) fn again(&self) -> Self {
        Self {
            load_before: load(),
            ..self.clone()
        }
    }
}

impl Outcome {
    pub(super) fn print(&self, around: &Surroundings) {
        println!("\n{}: {}", self.name, self.method);
        println!(
            "  commit {}, load {} before, {} after",
            around.commit,
            around.load_before,
            load()
        );
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
    pub(super) fn save(&self, profile: &str, around: &Surroundings) -> Result<()> {
        let dir = root().join("bench/results");
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}-{}.json", date()?, self.name));
        let document = self.document(profile, around);
        fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")?;
        println!("  written to {}", path.display());
        Ok(())
    }

    fn document(&self, profile: &str, around: &Surroundings) -> Value {
        json!({
            "name": self.name,
            "method": self.method,
            "reference": self.reference,
            "commit": around.commit,
            "command": command_line(),
            "profile": profile,
            "toolchain": around.toolchain,
            "machine": machine(),
            "load_before": around.load_before,
            "load_after": load(),
            "compare": self.compare,
            "summary": summarise(&self.samples, self.compare),
            "samples": self.samples,
        })
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
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": kernel.trim(),
        "memory": memory.trim_start_matches("MemTotal:").trim(),
    })
}

/// Of the last 1, 5 and 15 minutes.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = text.split_whitespace().take(3).collect();
    averages.join(" ")
}

/// Today in UTC, `YYYY-MM-DD`.
fn date() -> Result<String> {
    let days = wall().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    let (year, month, day) = base::date(days);
    Ok(format!("{year:04}-{month:02}-{day:02}"))
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
    fn a_result_says_what_is_needed_to_repeat_and_to_doubt_it() {
        let sample = |target: &str, value: f64| Sample {
            case: "c".to_owned(),
            target: target.to_owned(),
            round: 0,
            figures: [("cpu", value)].into(),
        };
        let outcome = Outcome {
            name: "x",
            method: "as follows".to_owned(),
            samples: vec![sample("nginx", 2.0), sample("kapok", 3.0)],
            compare: Some(Compare {
                figure: "cpu",
                baseline: "nginx",
            }),
            reference: "none",
        };
        let document = outcome.document("dist", &Surroundings::now());
        for field in [
            "commit",
            "command",
            "profile",
            "toolchain",
            "load_before",
            "load_after",
        ] {
            let text = document[field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "no {field} in {document}");
        }
        assert!(document["machine"]["cores"].as_u64() > Some(0));
        assert_eq!(document["summary"][1]["ratio"]["median"], 1.5);
    }
}
