//! What files there must be, how long they may be, and what they may not say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Finding::{self, Failure, Warning};

/// Without these a newcomer is lost, or may not use the code.
const REQUIRED: &[&str] = &[
    "LICENSE",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "models.toml",
];

/// Lines of production code; tests at the end of a file do not count.
const LINES_WARN: usize = 400;
const LINES_MAX: usize = 600;

/// A map that needs scrolling is no map.
const ARCHITECTURE_LINES_MAX: usize = 200;

/// Written by a program, and exempt from what is meant for people. Each says so in its first line.
const GENERATED: &[&str] = &[
    "crates/protocol/src/oip/proto/inference.rs",
    "crates/protocol/src/oip/proto/health.rs",
];

/// Packages in Cargo.lock, all platforms and tools included. Two cores build this from nothing in CI, and every package
/// is code that somebody must trust: reaching the ceiling is the moment to look for what can go, not to raise it. 52 of them
/// are the cluster client's and only in a binary with the feature `kubernetes`.
const LOCKED_PACKAGES_MAX: usize = 380;

/// Words that do not stay, and what to do instead. Split so that this table does not find itself.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it or leave it out"),
    (concat!("unimplemented", "!("), "finish it or leave it out"),
    (concat!("dbg", "!("), "use the log"),
    (concat!("#[", "ignore"), "a test runs or goes"),
    (concat!("#[", "allow("), "#[expect(lint, reason = \"…\")]"),
    (
        concat!("FIX", "ME"),
        "mend it, or write the gap down where users look",
    ),
    (
        concat!("XX", "X:"),
        "mend it, or write the gap down where users look",
    ),
];

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in REQUIRED {
        if !root.join(name).is_file() {
            findings.push(Failure(format!("`{name}` is missing")));
        }
    }
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let lines = map.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        findings.push(Failure(format!(
            "ARCHITECTURE.md has {lines} lines, at most {ARCHITECTURE_LINES_MAX}"
        )));
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let locked = lock.lines().filter(|line| *line == "[[package]]").count();
    if locked > LOCKED_PACKAGES_MAX {
        findings.push(Failure(format!(
            "Cargo.lock has {locked} packages, at most {LOCKED_PACKAGES_MAX}: see crates/xtask/src/tidy/files.rs"
        )));
    }
    for path in sources(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
        let text = fs::read_to_string(&path).with_context(|| format!("reading `{name}`"))?;
        findings.extend(check_source(&name, &text));
    }
    Ok(findings)
}

fn check_source(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if name.ends_with("/mod.rs") {
        findings.push(Failure(format!(
            "`{name}`: a module is `foo.rs` beside `foo/`"
        )));
    }
    if GENERATED.contains(&name) {
        if !text.starts_with("// @generated") {
            findings.push(Failure(format!(
                "`{name}` is listed as generated but does not say so"
            )));
        }
        return findings;
    }
    let lines = production_lines(text);
    if lines > LINES_MAX {
        findings.push(Failure(format!(
            "`{name}` has {lines} lines, at most {LINES_MAX}"
        )));
    } else if lines > LINES_WARN {
        findings.push(Warning(format!("`{name}` has {lines} lines, aim for 150")));
    }
    for (number, line) in text.lines().enumerate() {
        for (word, instead) in FORBIDDEN {
            if line.contains(word) {
                findings.push(Failure(format!(
                    "{name}:{}: `{word}`: {instead}",
                    number + 1
                )));
            }
        }
    }
    findings
}

/// Lines before the inline tests, which stand last in a file.
fn production_lines(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| matches!(pair, ["#[cfg(test)]", next] if next.starts_with("mod ") && next.ends_with('{')))
        .unwrap_or(lines.len())
}

/// Every Rust file of the house.
pub(super) fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("fuzz")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_warns_then_fails_and_its_tests_do_not_count() {
        let of = |lines: usize| "x\n".repeat(lines);
        assert_eq!(check_source("a.rs", &of(400)), []);
        assert!(matches!(check_source("a.rs", &of(401))[..], [Warning(_)]));
        assert!(matches!(check_source("a.rs", &of(601))[..], [Failure(_)]));
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", of(399), of(900));
        assert_eq!(check_source("a.rs", &tested), []);
    }

    #[test]
    fn words_that_must_not_stay_are_found_with_their_line() {
        for (word, _) in FORBIDDEN {
            let findings = check_source("a.rs", &format!("fine\n    {word}\n"));
            assert!(
                matches!(&findings[..], [Failure(text)] if text.starts_with("a.rs:2:")),
                "{word}: {findings:?}"
            );
        }
        assert_eq!(check_source("crates/a/src/mod.rs", "").len(), 1);
    }
}
