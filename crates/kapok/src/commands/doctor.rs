//! What this machine can do, what is missing, and how to get it.

mod gpu;
mod machine;
mod node;
mod software;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// Works, but something is worth knowing.
    Warn,
    /// Not there; kapok works without it.
    Missing,
    /// kapok cannot work like this.
    Broken,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it; empty when there is nothing to do.
    fix: String,
}

impl Check {
    pub(super) fn new(what: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            what,
            verdict,
            found: found.into(),
            fix: String::new(),
        }
    }

    #[must_use]
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

pub(super) fn run(printer: &Printer, environment: &Environment) -> Outcome {
    let mut checks = machine::checks();
    checks.extend(software::checks(environment));
    let (gpus, reading) = gpu::checks(environment);
    checks.extend(gpus);
    checks.extend(node::checks(environment));
    let document =
        json!({ "version": env!("CARGO_PKG_VERSION"), "checks": checks, "gpu": reading });
    printer.print(&document, table)?;
    let broken: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Broken)
        .map(|check| check.what)
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(
        Failure::failed(format!("kapok cannot work here: {}", broken.join(", ")))
            .hint("the lines marked `broken` say what to do"),
    )
}

fn table(document: &Value, style: Style) -> String {
    let mut table = Table::new(&["CHECK", "", "FOUND"]);
    for check in document["checks"].as_array().into_iter().flatten() {
        let field = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
        table.row([field("what"), field("verdict"), field("found")]);
        if !field("fix").is_empty() {
            table.row([String::new(), String::new(), format!("→ {}", field("fix"))]);
        }
    }
    table.render_with(style, |style, column, cell| match (column, cell) {
        (1, "ok") => style.good(cell),
        (1, "broken") => style.bad(cell),
        (1, _) => style.warn(cell),
        _ => cell.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_kapok_and_every_lack_has_a_fix() {
        let environment = Environment::default();
        let mut checks = machine::checks();
        checks.extend(software::checks(&environment));
        checks.extend(gpu::checks(&environment).0);
        for check in &checks {
            assert_ne!(check.verdict, Verdict::Broken, "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
            assert_eq!(
                check.fix.is_empty(),
                check.verdict == Verdict::Ok,
                "{check:?}"
            );
        }
        let text = table(&json!({ "checks": checks }), Style::new(false));
        assert!(text.contains("cores"), "{text}");
    }
}
