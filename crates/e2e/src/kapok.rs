//! A real `kapok` process on free ports, stopped and its log judged when the test ends.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::finished::Finished;
use crate::log::Log;
use crate::process::{alive, children_of, signal};
use crate::{binary, repository, wait};

/// How to start one; reads like a sentence.
#[derive(Debug, Default)]
pub struct Kapok {
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    config: Option<String>,
    allowed: Vec<String>,
    wait_for_live_only: bool,
}

impl Kapok {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn model_repo(self, dir: impl AsRef<Path>) -> Self {
        self.arg("--model-repo").arg(dir.as_ref())
    }

    #[must_use]
    pub fn upstream(self, name: &str, url: &str) -> Self {
        self.arg("--upstream").arg(format!("{name}={url}"))
    }

    /// The text of `kapok.yaml`.
    #[must_use]
    pub fn config(mut self, yaml: impl Into<String>) -> Self {
        self.config = Some(yaml.into());
        self
    }

    /// A part of a WARN or ERROR line that this test provokes.
    #[must_use]
    pub fn allow_log(mut self, part: &str) -> Self {
        self.allowed.push(part.to_owned());
        self
    }

    /// Does not wait for every model: one of them is broken, or slow on purpose.
    #[must_use]
    pub fn when_live(mut self) -> Self {
        self.wait_for_live_only = true;
        self
    }

    /// Starts `kapok up` and returns when it is ready.
    ///
    /// # Panics
    /// When it exits or does not become ready.
    pub fn start(self) -> Running {
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut command = self.command("up", home.path());
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--output", "json"]);
        let path = if self.wait_for_live_only {
            "/health/live"
        } else {
            "/health/ready"
        };
        let mut running = self.spawn(command, home);
        running.wait_for_addresses();
        running.wait_for(path);
        running
    }

    /// Starts it under Triton's name, with Triton's flags, and returns when it says Triton's words.
    ///
    /// # Panics
    /// When it exits or does not say them.
    pub fn start_as_tritonserver(self) -> Running {
        let home = tempfile::tempdir().expect("a temporary folder");
        let command = self.as_tritonserver(home.path());
        let mut running = self.spawn(command, home);
        running.public = running.started("HTTPService");
        running
    }

    /// The same for a start that must fail.
    pub fn run_as_tritonserver(self) -> Finished {
        let home = tempfile::tempdir().expect("a temporary folder");
        Finished::of(self.as_tritonserver(home.path()))
    }

    fn as_tritonserver(&self, home: &Path) -> Command {
        let program = home.join("tritonserver");
        std::os::unix::fs::symlink(binary::path(), &program).expect("the folder is ours");
        let mut command = Command::new(program);
        command.args(&self.args);
        self.surround(&mut command, home);
        command
    }

    fn spawn(self, mut command: Command, home: TempDir) -> Running {
        let mut child = command.spawn().expect("the binary starts");
        let out = Log::default();
        let log = Log::default();
        let readers = vec![
            out.collect(child.stdout.take().expect("stdout is piped")),
            log.collect(child.stderr.take().expect("stderr is piped")),
        ];
        Running {
            pid: child.id(),
            child,
            public: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            out,
            readers,
            allowed: self.allowed,
            exited: None,
            home,
        }
    }

    /// Runs to its end: a start that must fail.
    pub fn run(self) -> Finished {
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut command = self.command("up", home.path());
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        Finished::of(command)
    }

    fn command(&self, verb: &str, home: &Path) -> Command {
        let mut command = Command::new(binary::path());
        command.arg(verb).args(&self.args);
        self.surround(&mut command, home);
        command
    }

    fn surround(&self, command: &mut Command, home: &Path) {
        command.current_dir(home);
        if let Some(yaml) = &self.config {
            std::fs::write(home.join("kapok.yaml"), yaml).expect("the folder is ours");
            command.arg("--config").arg("kapok.yaml");
        }
        isolate(command, home);
        command
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }
}

/// Nothing of the user's own set-up reaches a test: no configuration, no collector, no remembered choice of engine. Only
/// the library that `cargo xtask fetch` placed is named.
fn isolate(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    for name in [
        "KAPOK_CONFIG",
        "KAPOK_MODEL_REPO",
        "KAPOK_LISTEN",
        "KAPOK_ADMIN",
        "KAPOK_LOG",
    ] {
        command.env_remove(name);
    }
    command.env("KAPOK_CACHE", home.join("cache"));
    if let Some(library) = repository::onnxruntime() {
        command.env("ORT_DYLIB_PATH", library);
    }
}

/// A started `kapok up`.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Of the process that serves: after an upgrade it is not the child.
    pid: u32,
    public: SocketAddr,
    admin: SocketAddr,
    log: Log,
    out: Log,
    readers: Vec<JoinHandle<()>>,
    allowed: Vec<String>,
    exited: Option<ExitStatus>,
    home: TempDir,
}

impl Running {
    pub fn http(&self) -> Client {
        Client::to(self.public)
    }

    pub fn admin(&self) -> Client {
        Client::to(self.admin)
    }

    pub fn address(&self) -> SocketAddr {
        self.public
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.public)
    }

    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file that [`Kapok::config`] wrote.
    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("kapok.yaml")
    }

    /// Has it replaced by another process of the same command line, and returns when that one serves.
    ///
    /// # Panics
    /// When it does not, or serves elsewhere.
    pub fn upgrade(&mut self) {
        let before = self.listening().len();
        signal("USR2", self.pid);
        let (pid, addresses) = wait::until("the new process to listen", || {
            self.listening().get(before).cloned()
        });
        assert_eq!(addresses, (self.public, self.admin), "it moved");
        self.pid = pid;
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Where a service of Triton's name is, which its ready line says.
    ///
    /// # Panics
    /// When it exits or does not say so.
    pub fn started(&mut self, service: &str) -> SocketAddr {
        let words = format!("Started {service} at ");
        wait::until(&words, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.exited = Some(status);
                fail(&format!("it exited with {status}\n{}", self.log.text()));
            }
            let text = self.log.text();
            let (_, rest) = text.split_once(&words)?;
            rest.split_whitespace().next()?.parse().ok()
        })
    }

    pub fn wait_for_log(&self, part: &str) {
        wait::until(part, || self.log.contains(part).then_some(()));
    }

    /// Runs a client command of the same binary against this one, with `--output json`.
    pub fn cli(&self, args: &[&str]) -> Finished {
        let url = self.url();
        let admin = self.admin_url();
        let mut command = Command::new(binary::path());
        command
            .args(args)
            .args(["--output", "json"])
            .env("KAPOK_URL", &url)
            .env("KAPOK_ADMIN_URL", &admin)
            .stdin(Stdio::null());
        Finished::of(command)
    }

    /// Asks it to stop as a service manager does, and returns its exit code.
    pub fn stop(mut self) -> i32 {
        self.terminate()
    }

    /// Names of this process's threads, as the kernel has them.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect()
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|kib| kib.parse().ok())
            .expect("VmRSS is a number")
    }

    /// Processes that this one started and that still run.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }

    /// The exit code after SIGTERM; -1 when a signal ended it.
    fn terminate(&mut self) -> i32 {
        if self.pid != self.child.id() {
            signal("TERM", self.pid);
            wait::until("the end of the last process", || {
                (!alive(self.pid)).then_some(())
            });
        }
        if self.exited.is_none() {
            signal("TERM", self.child.id());
            self.exited = wait::within(wait::PATIENCE, || self.child.try_wait().ok().flatten());
        }
        if self.exited.is_none() {
            let _already_gone = self.child.kill();
            self.exited = self.child.wait().ok();
            fail(&format!("it ignored SIGTERM\n{}", self.log.text()));
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader does not panic");
        }
        self.exited.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// Whether it ended before it was asked to: a test that kills it knows.
    fn ended(&mut self) -> bool {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
        }
        self.exited.is_some()
    }

    fn wait_for_addresses(&mut self) {
        let (_, addresses) = wait::until("the line with the listening addresses", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.exited = Some(status);
                fail(&format!("it exited with {status}\n{}", self.log.text()));
            }
            self.listening().first().cloned()
        });
        (self.public, self.admin) = addresses;
    }

    /// The process and its public and admin addresses, of every line that has told them.
    fn listening(&self) -> Vec<(u32, (SocketAddr, SocketAddr))> {
        let text = self.out.text();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = lines.filter_map(|line| {
            let address = |door: &str| line["listening"][door].as_str()?.parse().ok();
            let pid = u32::try_from(line["pid"].as_u64()?).ok()?;
            Some((pid, (address("public")?, address("admin")?)))
        });
        told.collect()
    }

    fn wait_for(&mut self, path: &str) {
        wait::until(path, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.exited = Some(status);
                fail(&format!("it exited with {status}\n{}", self.log.text()));
            }
            let answer = Client::to(self.public).try_get(path).ok()?;
            (answer.status == 200).then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _already_gone = self.child.kill();
            let _reaped = self.child.wait();
            show(&format!("--- log of kapok ---\n{}", self.log.text()));
            return;
        }
        let killed = self.ended() || self.pid != self.child.id();
        let code = self.terminate();
        assert!(
            killed || code >= 0,
            "a signal ended it\n--- log of kapok ---\n{}",
            self.log.text()
        );
        let unexpected = self.log.unexpected(&self.allowed);
        assert!(
            unexpected.is_empty(),
            "unexpected in the log:\n{}\n--- log of kapok ---\n{}",
            unexpected.join("\n"),
            self.log.text()
        );
    }
}

#[expect(clippy::panic, reason = "a test helper fails its test")]
pub(crate) fn fail(message: &str) -> ! {
    panic!("{message}")
}

#[expect(clippy::print_stderr, reason = "a failed test shows the log")]
fn show(text: &str) {
    eprintln!("{text}");
}
