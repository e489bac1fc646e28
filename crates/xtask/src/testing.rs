//! `cargo xtask test`: every check and every test, with all set-up.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::catalogue::Catalogue;
use crate::fetch::{self, Store};
use crate::process::{self, cargo, run};
use crate::setup::{self, DebianFile, Install, Program};
use crate::workspace::{self, cache_dir, env, now};

/// What the tests start besides kapok and Python packages.
const PROGRAMS: &[Program] = &[("python3", "python3-venv")];

/// The Python side of the tests: pip's flags and the file, in this order.
const REQUIREMENTS: &[(&[&str], &str)] = &[
    (&[], "crates/e2e/python/requirements.txt"),
    (&["--no-deps"], "crates/e2e/python/requirements-nodeps.txt"),
];

/// What `perf_analyzer` is linked with, as bookworm has it.
const LIBB64: DebianFile = DebianFile {
    package: "libb64-0d",
    member: "usr/lib/x86_64-linux-gnu/libb64.so.0d",
    sha256: "9d910643a635b0b534228f1437af9787d8386cf7b955639019ce6f65422b8f37",
};

/// A registry of nodes.
const ETCD: DebianFile = DebianFile {
    package: "etcd-server",
    member: "usr/bin/etcd",
    sha256: "a45de16600eafc57939b84013b0522c4670435471eb4073dd963d01e0eb5a217",
};

/// Closing lines of the test runner that are repeated at the very end.
const CLOSING_LINES: usize = 12;

/// A client of clusters, as old as bookworm.
const KUBECTL: DebianFile = DebianFile {
    package: "kubernetes-client",
    member: "usr/bin/kubectl",
    sha256: "f6dccba14307041c08d5b95ee5e5fb81a9f6f7ec45340c721edfc1a0ef581041",
};

/// How long each step took and what went wrong.
#[derive(Default)]
struct Report {
    steps: Vec<(String, Duration, Option<anyhow::Error>)>,
    closing: Vec<String>,
}

/// Runs everything; `filter` goes to the test runner as it is.
pub(crate) fn run_all(cache: Option<PathBuf>, filter: &[String]) -> Result<()> {
    process::catch_signals()?;
    let cache = cache_dir(cache)?;
    let mut report = Report::default();
    report.step("format", || run(cargo().args(["fmt", "--all", "--check"])));
    report.step("tidy", crate::tidy::run);
    report.step("generated code", || crate::codegen(true));
    report.step("clippy", || {
        // The tests' binary does without the feature.
        let what = [
            "--workspace",
            "--all-targets",
            "--features=kapok/kubernetes",
        ];
        let mut clippy = cargo();
        environment(&mut clippy).arg("clippy").args(what);
        run(clippy.args(["--", "-D", "warnings"]))
    });
    let libraries = report.step("models", || {
        let catalogue = Catalogue::read(&workspace::root())?;
        // Optional ones too, where they exist: tests that need a library must not pass over its lack.
        let entries = catalogue.entries.iter();
        let all: Vec<_> = entries
            .filter(|entry| !entry.optional || entry.files_here().next().is_some())
            .collect();
        let store = Store::new(cache.clone());
        fetch::bring(&catalogue, &all, &store)?;
        if let Some(entry) = all.iter().find(|entry| entry.name == "perf-analyzer") {
            perf_analyzer(&store.entry_dir(entry))?;
        }
        let openvino = all.iter().any(|entry| entry.name == "openvino");
        Ok((fetch::ort_library(&catalogue, &store)?, openvino))
    });
    report.step("programs", || setup::debian(PROGRAMS));
    for (name, file) in [("etcd", &ETCD), ("kubectl", &KUBECTL)] {
        report.step(name, || {
            let folder = cache.join(name);
            std::fs::create_dir_all(&folder)?;
            file.place(&folder.join(name))
        });
    }
    let python = report.step("python", || python(&cache));
    let suite = report.step("openai-python's tests", || {
        crate::openai_suite::prepare(&cache)
    });
    report.step("build for a cluster", build_for_cluster);
    let binary = report.step("build", build);
    if let (Some((ort, openvino)), Some(python), Some(suite), Some(())) =
        (libraries, python, suite, binary)
    {
        let tests = Tests {
            cache,
            ort,
            openvino,
            python,
            suite,
            filter,
        };
        let closing = report.step("tests", || tests.run());
        report.closing = closing.unwrap_or_default();
        if filter.is_empty() {
            report.step("documentation tests", || {
                run(tests.environment(&mut cargo()).args([
                    "test",
                    "--workspace",
                    "--doc",
                    "--quiet",
                ]))
            });
        }
    }
    report.finish()
}

/// The kapok that one room's tests start, beside the one that all others do: same file name, so it is put aside.
fn build_for_cluster() -> Result<()> {
    let what = ["build", "-p", "kapok", "--features", "kubernetes"];
    run(environment(&mut cargo()).args(what))?;
    let built = workspace::target().join("debug/kapok");
    let aside = cluster_binary();
    if aside.exists() {
        std::fs::remove_file(&aside)?;
    }
    // Cargo replaces its file and does not write into it.
    std::fs::hard_link(&built, &aside)
        .or_else(|_| std::fs::copy(&built, &aside).map(drop))
        .with_context(|| format!("cannot put `{}` aside", aside.display()))
}

fn build() -> Result<()> {
    run(environment(&mut cargo()).args(["build", "-p", "kapok"]))
}

fn cluster_binary() -> PathBuf {
    workspace::target().join("debug/kapok-kubernetes")
}

/// In CI nothing is built twice, so incremental files only cost disk.
fn environment(command: &mut Command) -> &mut Command {
    if env("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Makes it run from its folder.
fn perf_analyzer(folder: &Path) -> Result<()> {
    let program = folder.join("perf_analyzer");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    LIBB64.place(&folder.join("libb64.so.0d"))
}

fn python(cache: &Path) -> Result<PathBuf> {
    let root = workspace::root();
    let installs = REQUIREMENTS
        .iter()
        .map(|(flags, file)| Install::file(&root.join(file), flags))
        .collect::<Result<Vec<_>>>()?;
    setup::venv(&cache.join("test-venv"), &installs)
}

struct Tests<'a> {
    cache: PathBuf,
    ort: PathBuf,
    /// Whether there is an OpenVINO for this processor.
    openvino: bool,
    python: PathBuf,
    /// openai-python's own tests and what they need.
    suite: PathBuf,
    filter: &'a [String],
}

impl Tests<'_> {
    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        environment(command)
            .env("ORT_DYLIB_PATH", &self.ort)
            // A missing library fails the tests that need it instead of passing over them.
            .env("KAPOK_REQUIRE_ORT", "1")
            .env(
                "KAPOK_REQUIRE_OPENVINO",
                if self.openvino { "1" } else { "0" },
            )
            .env("KAPOK_TEST_PYTHON", &self.python)
            .env("KAPOK_OPENAI_SUITE", &self.suite)
            .env("KAPOK_TEST_CACHE", &self.cache)
            .env("KAPOK_TEST_KUBERNETES_BINARY", cluster_binary())
            .env("KAPOK_TEST_BINARY", workspace::target().join("debug/kapok"))
    }

    /// Runs the tests, passing everything through; answers the closing lines. A failure carries them too.
    fn run(&self) -> Result<Vec<String>> {
        let nextest = cargo()
            .args(["nextest", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let mut command = cargo();
        if nextest {
            command.args(["nextest", "run", "--no-fail-fast"]);
        } else {
            command.args(["test", "--all-targets", "--no-fail-fast"]);
        }
        // Naming packages and the whole workspace together means the workspace.
        if !self
            .filter
            .iter()
            .any(|arg| arg == "-p" || arg == "--package")
        {
            command.arg("--workspace");
        }
        self.environment(&mut command).args(self.filter);
        let lines = pass_through(&mut command)?;
        let start = lines.len().saturating_sub(CLOSING_LINES);
        Ok(lines.into_iter().skip(start).collect())
    }
}

/// Shows stdout and stderr as they come, on stderr, and keeps the lines of the stream that has the summary.
fn pass_through(command: &mut Command) -> Result<Vec<String>> {
    let shown = process::show(command);
    // One pipe for both keeps their order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    // The command still holds the pipe's writing end, and reading would never end.
    *command = Command::new("true");
    let lines = std::thread::spawn(move || -> std::io::Result<Vec<String>> {
        let mut lines = Vec::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            writeln!(std::io::stderr(), "{line}")?;
            lines.push(line);
        }
        Ok(lines)
    });
    let status = process::wait(&mut child)?;
    let lines = lines
        .join()
        .map_err(|_| anyhow!("the reader of `{shown}` panicked"))??;
    ensure!(
        status.success(),
        "`{shown}` ended with {status}\n{}",
        failures(&lines).join("\n")
    );
    Ok(lines)
}

/// The lines that say which tests failed, in nextest's words or libtest's, and the summary.
fn failures(lines: &[String]) -> Vec<&str> {
    let names_failure = |line: &&str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        matches!(
            word,
            "FAIL" | "SIGNAL" | "TIMEOUT" | "SIGABRT" | "SIGSEGV" | "Summary"
        ) || line.ends_with("... FAILED")
            || line.starts_with("test result: FAILED")
            || line.starts_with("error")
    };
    let mut found: Vec<_> = lines
        .iter()
        .map(String::as_str)
        .filter(names_failure)
        .collect();
    // nextest says it once when it happens and once in its summary.
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|line| seen.insert(line.trim().to_owned()));
    found
}

impl Report {
    fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        if process::interrupted() {
            return None;
        }
        eprintln!("\n== {name}");
        let started = now();
        let (value, error) = match work() {
            Ok(value) => (Some(value), None),
            Err(error) => {
                eprintln!("{error:#}");
                (None, Some(error))
            }
        };
        let took = now().duration_since(started);
        self.steps.push((name.to_owned(), took, error));
        value
    }

    fn finish(self) -> Result<()> {
        println!();
        for (name, took, error) in &self.steps {
            let verdict = if error.is_some() { "FAILED" } else { "ok" };
            println!("{name:20} {:7.1} s  {verdict}", took.as_secs_f64());
        }
        let failed: Vec<_> = self
            .steps
            .iter()
            .filter_map(|(name, _, error)| Some(format!("{name}: {:#}", error.as_ref()?)))
            .collect();
        ensure!(!process::interrupted(), "interrupted");
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        for line in &self.closing {
            println!("{line}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_tests_are_named_once() {
        let said: Vec<_> = [
            "        PASS [   0.1s] base a",
            "        FAIL [   0.1s] base b",
            "     Summary [   1.0s] 2 tests run: 1 passed, 1 failed",
            "        FAIL [   0.1s] base b",
            "test c ... FAILED",
            "error: test run failed",
        ]
        .map(str::to_owned)
        .into();
        let named = failures(&said);
        assert_eq!(named.len(), 4, "{named:?}");
        assert!(named[0].contains("base b"));
    }

    #[test]
    fn both_streams_of_a_command_are_kept() {
        let lines =
            pass_through(Command::new("sh").args(["-c", "echo one; echo two >&2"])).unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert!(pass_through(Command::new("sh").args(["-c", "exit 1"])).is_err());
    }
}
