//! Who may use whom, and what every room's manifest must say.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding::{self, Failure};
use crate::process::{cargo, output};

/// Every room and the rooms it may use. An edge that is not here fails; so does a room that is not here.
const EDGES: &[(&str, &[&str])] = &[
    // words
    ("base", &[]),
    ("protocol", &["base"]),
    ("telemetry", &["base", "protocol"]),
    // thinking: no I/O, no clock
    ("text", &["base", "protocol"]),
    ("batch", &["base", "protocol"]),
    ("routing", &["base"]),
    ("policy", &["base", "protocol"]),
    ("scheduler", &[]),
    // doing
    (
        "runtime",
        &["base", "protocol", "telemetry", "text", "batch"],
    ),
    // joining
    ("onnx", &["base", "protocol", "telemetry", "runtime"]),
    ("native", &["protocol", "runtime"]),
    ("isolation", &["base", "protocol", "runtime"]),
    (
        "gateway",
        &["base", "protocol", "telemetry", "routing", "policy"],
    ),
    ("discovery", &["base", "protocol"]),
    ("process", &[]),
    (
        "jobs",
        &["base", "protocol", "telemetry", "scheduler", "process"],
    ),
    ("kubernetes", &["base", "protocol", "scheduler", "jobs"]),
    ("device", &["base", "protocol", "telemetry", "runtime"]),
    // binary
    (
        "kapok",
        &[
            "base",
            "protocol",
            "telemetry",
            "text",
            "runtime",
            "onnx",
            "native",
            "isolation",
            "gateway",
            "device",
            "scheduler",
            "discovery",
            "jobs",
            "process",
            "kubernetes",
        ],
    ),
    // tools: nobody uses them but each other. `e2e` sees what a user sees, so of ours it knows only the clock.
    ("e2e", &["base"]),
    ("xtask", &["base", "batch", "e2e", "routing", "scheduler"]),
];

/// Rooms that state their own lints, and why.
const OWN_LINTS: &[(&str, &str)] = &[
    ("onnx", "the engines' libraries are C and C++"),
    ("native", "calls libraries that nobody here has read"),
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// Present for a dependency inside the workspace.
    path: Option<String>,
}

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let args = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata: Metadata =
        serde_json::from_str(&output(cargo().args(args))?).context("in cargo's metadata")?;
    let mut findings = edges(&metadata.packages, EDGES);
    for package in &metadata.packages {
        let manifest = std::fs::read_to_string(&package.manifest_path)?;
        findings.extend(lints(&package.name, &manifest));
    }
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for (room, _) in EDGES {
        if !map.contains(&format!("`{room}`")) {
            findings.push(Failure(format!(
                "ARCHITECTURE.md does not mention `{room}`"
            )));
        }
    }
    Ok(findings)
}

/// Normal, development and build dependencies are all edges: a test may not reach where the code may not.
fn edges(packages: &[Package], allowed: &[(&str, &[&str])]) -> Vec<Finding> {
    let allowed: BTreeMap<_, _> = allowed.iter().copied().collect();
    let mut findings = Vec::new();
    for package in packages {
        let Some(may_use) = allowed.get(package.name.as_str()) else {
            findings.push(Failure(format!(
                "room `{}` is not in the table of rooms in crates/xtask/src/tidy/rooms.rs",
                package.name
            )));
            continue;
        };
        let ours = package.dependencies.iter().filter(|d| d.path.is_some());
        // A room names itself to give its own tests a feature.
        for dependency in ours.filter(|dependency| dependency.name != package.name) {
            if !may_use.contains(&dependency.name.as_str()) {
                findings.push(Failure(format!(
                    "`{}` may not use `{}` (it may use: {})",
                    package.name,
                    dependency.name,
                    may_use.join(", ")
                )));
            }
        }
    }
    for room in allowed.keys() {
        if !packages.iter().any(|package| package.name == *room) {
            findings.push(Failure(format!(
                "the table of rooms has `{room}`, the workspace has not"
            )));
        }
    }
    findings
}

fn lints(room: &str, manifest: &str) -> Option<Finding> {
    let parsed: toml::Table = match toml::from_str(manifest) {
        Ok(parsed) => parsed,
        Err(error) => return Some(Failure(format!("`{room}`: {error}"))),
    };
    let table = parsed.get("lints").and_then(toml::Value::as_table);
    let inherits = table
        .and_then(|table| table.get("workspace"))
        .and_then(toml::Value::as_bool)
        == Some(true);
    match OWN_LINTS.iter().find(|(name, _)| *name == room) {
        None if !inherits => Some(Failure(format!(
            "`{room}` must inherit the lints: [lints] workspace = true"
        ))),
        Some((_, why)) if inherits || table.is_none() => {
            Some(Failure(format!("`{room}` must state its own lints: {why}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency {
            name: (*name).to_owned(),
            path: Some(format!("/somewhere/{name}")),
        };
        Package {
            name: name.to_owned(),
            manifest_path: String::new(),
            dependencies: uses.iter().map(dependency).collect(),
        }
    }

    const TWO: &[(&str, &[&str])] = &[("base", &[]), ("store", &["base"])];

    #[test]
    fn an_edge_that_nobody_allowed_fails() {
        let good = [package("base", &[]), package("store", &["base"])];
        assert_eq!(edges(&good, TWO), []);
        let bad = [package("base", &["store"]), package("store", &["base"])];
        let findings = edges(&bad, TWO);
        assert!(
            matches!(&findings[..], [Failure(text)] if text.starts_with("`base` may not use `store`")),
            "{findings:?}"
        );
    }

    #[test]
    fn the_table_and_the_workspace_name_the_same_rooms() {
        let strange = [
            package("base", &[]),
            package("store", &[]),
            package("attic", &[]),
        ];
        assert_eq!(edges(&strange, TWO).len(), 1);
        assert_eq!(edges(&[package("base", &[])], TWO).len(), 1);
    }

    #[test]
    fn libraries_from_outside_are_no_edge() {
        let mut outside = package("base", &["serde"]);
        outside.dependencies[0].path = None;
        assert_eq!(edges(&[outside, package("store", &[])], TWO), []);
    }

    #[test]
    fn the_tools_are_used_by_nobody() {
        // `bench faults` plays the tests' own faults.
        for (room, uses) in EDGES.iter().filter(|(room, _)| *room != "xtask") {
            for tool in ["e2e", "xtask", "kapok"] {
                assert!(!uses.contains(&tool), "{room} -> {tool}");
            }
        }
    }

    #[test]
    fn lints_are_inherited_unless_the_table_says_otherwise() {
        let inherits = "[lints]\nworkspace = true\n";
        let own = "[lints.clippy]\ntodo = \"warn\"\n";
        assert_eq!(lints("base", inherits), None);
        assert!(lints("base", own).is_some());
        assert!(lints("base", "").is_some());
        assert_eq!(lints("onnx", own), None);
        assert!(lints("onnx", inherits).is_some());
        assert!(lints("onnx", "").is_some());
    }
}
