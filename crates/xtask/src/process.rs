//! Running other programs: to their end, or until we stop them. Nothing started here outlives this tool.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::workspace::{self, env, poll};

/// How long a child may take to stop before it is killed: kapok drains, llama.cpp ends at once.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

/// Set by SIGINT or SIGTERM. A signal handler can only reach what is global.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on a signal asks instead of kills, so that children are stopped in order.
pub(crate) fn catch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

pub(crate) fn interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// `cargo`, the one that runs us when there is one, in the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env("CARGO").unwrap_or_else(|| "cargo".to_owned()));
    command.current_dir(workspace::root());
    command
}

/// Runs to the end with the output shown on stderr: stdout belongs to this tool's own result.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let status = wait(&mut child)?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// Runs to the end and answers what it wrote to stdout; what it wrote to stderr is shown when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(
        output.status.success(),
        "`{shown}` ended with {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits for the end; a signal to us stops the child first.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = poll(Duration::from_secs(1), || {
            if interrupted() {
                return Some(Ok(None));
            }
            child.try_wait().transpose().map(|status| status.map(Some))
        }) {
            if let Some(status) = status? {
                return Ok(status);
            }
            stop(child);
            bail!("interrupted");
        }
    }
}

/// A program that runs beside us and is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// In a process group of its own: Ctrl-C on the terminal reaches us alone, and we stop it with care.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        Self::spawn(name, command.stdin(Stdio::null()))
    }

    /// The same, for a program that is spoken to.
    pub(crate) fn start_with_input(name: &str, command: &mut Command) -> Result<Self> {
        Self::spawn(name, command.stdin(Stdio::piped()))
    }

    fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}`", show(command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails when it is no longer there, or when we were asked to stop.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("`{}` ended with {status}", self.name);
        }
        ensure!(!interrupted(), "interrupted");
        Ok(())
    }

    /// Asks until `ready` answers; fails early when the program ends.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        poll(limit, || match self.check() {
            Err(error) => Some(Err(error)),
            Ok(()) => ready().map(Ok),
        })
        .with_context(|| format!("`{}`: no {what} after {limit:?}", self.name))?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// SIGTERM, patience, SIGKILL.
fn stop(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    // The standard library only knows SIGKILL.
    let _asked = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    let ended = poll(STOP_TIME_MAX, || child.try_wait().ok().flatten());
    if ended.is_none() {
        let _killed = child.kill();
        let _reaped = child.wait();
    }
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_else(|| command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_shows_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sh -c") && text.contains("broken"), "{text}");
        assert!(run(&mut Command::new("/no/such/program")).is_err());
        assert_eq!(output(Command::new("echo").arg("x")).unwrap(), "x\n");
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let running = Running::start("sleep", Command::new("sleep").arg("600")).unwrap();
        let proc = std::path::PathBuf::from(format!("/proc/{}", running.id()));
        assert!(proc.exists());
        drop(running);
        assert!(!proc.exists());
    }

    #[test]
    fn waiting_ends_early_when_the_program_does() {
        let mut running = Running::start("true", &mut Command::new("true")).unwrap();
        let error = running
            .wait_for("answer", Duration::from_secs(60), || None::<()>)
            .unwrap_err();
        assert!(error.to_string().contains("ended with"), "{error}");
    }
}
