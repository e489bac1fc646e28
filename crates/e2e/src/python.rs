//! Third-party clients: Python scripts that run against a started binary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::kapok::{Running, fail};
use crate::log::Log;
use crate::{repository, wait};

/// The longest script, the 8,602 tests of openai-python run twice, takes three and a half minutes on two idle cores.
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(900);

/// The interpreter of the test environment.
///
/// # Panics
/// When the environment was not made.
pub fn interpreter() -> PathBuf {
    let python = std::env::var_os("KAPOK_TEST_PYTHON").map_or_else(
        || repository::cache().join("test-venv/bin/python"),
        PathBuf::from,
    );
    assert!(
        python.is_file(),
        "{} is missing: run `cargo xtask test`, which makes it",
        python.display()
    );
    python
}

/// A script of `crates/e2e/python`, or a module of the test environment, and what it is told.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    args: Vec<OsString>,
    envs: Vec<(String, String)>,
    folder: PathBuf,
}

impl Script {
    pub fn new(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        Self {
            name,
            args: vec![folder.join(name).into()],
            envs: Vec::new(),
            folder: PathBuf::from("."),
        }
    }

    /// A module such as `pytest`, on our own Python package.
    pub fn on_sdk(module: &'static str, args: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python");
        let source = folder.join("src");
        let module_first = ["-m", module].into_iter();
        let args = module_first.chain(args.iter().copied()).map(OsString::from);
        Self {
            name: module,
            args: args.collect(),
            envs: Vec::new(),
            folder,
        }
        .env("PYTHONPATH", source.display())
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.envs.push((name.to_owned(), value.to_string()));
        self
    }

    /// Tells it where the server is.
    #[must_use]
    pub fn against(self, kapok: &Running) -> Self {
        self.env("KAPOK_URL", kapok.url())
            .env("KAPOK_ADMIN_URL", kapok.admin_url())
    }

    /// Runs it to its end and shows what it printed.
    ///
    /// # Panics
    /// When it fails or does not end.
    pub fn run(self) -> String {
        let mut child = Command::new(interpreter())
            .arg("-u")
            .args(self.args)
            .current_dir(self.folder)
            .envs(self.envs)
            // Clients must not look for a proxy or call home.
            .env("NO_PROXY", "*")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python starts");
        let log = Log::default();
        let readers = [
            log.collect(child.stdout.take().expect("stdout is piped")),
            log.collect(child.stderr.take().expect("stderr is piped")),
        ];
        let status = wait::within(SCRIPT_TIME_MAX, || child.try_wait().ok().flatten());
        if status.is_none() {
            let _already_gone = child.kill();
            let _reaped = child.wait();
        }
        for reader in readers {
            reader.join().expect("the reader does not panic");
        }
        let text = log.text();
        match status {
            Some(status) if status.success() => text,
            Some(status) => fail(&format!("{} ended with {status}\n{text}", self.name)),
            None => fail(&format!("{} did not end\n{text}", self.name)),
        }
    }
}
