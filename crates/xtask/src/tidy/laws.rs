//! The tests that `docs/laws.md` names are there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding::{self, Failure};
use super::files;

const PAGE: &str = "docs/laws.md";

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let page =
        fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let mut sources = Vec::new();
    for path in files::sources(root)? {
        let text = fs::read_to_string(&path)?;
        sources.push((path, text));
    }
    let there = |file: &str, test: &str| {
        let declared = format!("fn {test}(");
        sources.iter().any(|(path, text)| {
            path.components().any(|part| {
                let part = part.as_os_str().to_str().unwrap_or_default();
                part.strip_suffix(".rs").unwrap_or(part) == file
            }) && text.contains(&declared)
        })
    };
    Ok(missing(&page, there))
}

/// Of each line of the table: the tests in its second column, as `file::test`.
fn missing(page: &str, there: impl Fn(&str, &str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rows = page.lines().filter(|line| line.starts_with("| **"));
    for row in rows {
        let column = row.split(" | ").nth(1).unwrap_or_default();
        let tests: Vec<&str> = column.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            findings.push(Failure(format!("{PAGE}: no test holds {row}")));
        }
        for test in tests {
            let found = test.split_once("::");
            if !found.is_some_and(|(file, name)| there(file, name)) {
                findings.push(Failure(format!("{PAGE}: there is no test `{test}`")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_and_a_law_without_one_are_found() {
        let page = "| law | tests |\n|---|---|\n| **One** | `laws::kept`, `laws::gone` | x |\n| **Two** | none | x |\n";
        let found = missing(page, |file, test| (file, test) == ("laws", "kept"));
        let told: Vec<String> = found.iter().map(|finding| format!("{finding:?}")).collect();
        assert_eq!(found.len(), 2, "{told:?}");
        assert!(
            told[0].contains("laws::gone") && told[1].contains("**Two**"),
            "{told:?}"
        );
    }
}
