//! One child process in a group of its own, with everything that it starts.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use protocol::resource::ProcessSpec;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::output::Output;

/// After its end: how long what it printed last may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Between two looks for what is left of the group.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// Whether the kernel is asked to end the process when kapok is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    On,
    Off,
}

impl Default for Guard {
    /// Other kernels have no such request.
    fn default() -> Self {
        if cfg!(target_os = "linux") {
            Self::On
        } else {
            Self::Off
        }
    }
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
    output: Output,
    reaped: bool,
}

impl Process {
    pub(super) fn start(name: &str, spec: &ProcessSpec, guard: Guard) -> Result<Self, String> {
        let Some((program, args)) = spec.command.split_first() else {
            return Err("its command is empty".to_owned());
        };
        let mut command = match guard {
            Guard::Off => Command::new(program),
            Guard::On => guarded(program),
        };
        command.args(args).envs(&spec.env);
        if let Some(folder) = &spec.working_dir {
            if !folder.is_dir() {
                return Err(format!(
                    "working folder `{}` is not there",
                    folder.display()
                ));
            }
            command.current_dir(folder);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for kapok, which then stops the group in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
        let group = child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()))
            .ok_or("it ended while it was started")?;
        let output = Output::new(name, child.stdout.take(), child.stderr.take());
        Ok(Self {
            child,
            group,
            output,
            reaped: false,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.group.as_raw_pid()
    }

    /// Logs what it prints until it ends, ends what it left behind, and says how it ended. Cancel-safe up to its end.
    pub(super) async fn exited(&mut self) -> String {
        let Self { child, output, .. } = self;
        let status = tokio::select! {
            status = child.wait() => status,
            // It may close its streams and go on.
            () = output.log() => child.wait().await,
        };
        self.reaped = true;
        // The group's number stays taken as long as one of its processes lives, so this cannot meet strangers.
        self.signal(Signal::KILL);
        // Whatever left the group can hold the streams open for ever.
        let _in_time = timeout(LAST_WORDS, self.output.log()).await;
        let _all = timeout(LAST_WORDS, self.reap()).await;
        match status {
            Ok(status) => ended(status, self.output.last()),
            Err(error) => format!("its end cannot be observed: {error}"),
        }
    }

    /// Asks the group to end, and after `patience` makes it.
    pub(super) async fn stop(&mut self, patience: Duration) {
        self.signal(Signal::TERM);
        if timeout(patience, self.exited()).await.is_err() {
            self.signal(Signal::KILL);
            self.exited().await;
        }
    }

    /// As the first process of a container kapok inherits what its children leave behind, and only it can bury them.
    async fn reap(&self) {
        loop {
            match waitpgid(self.group, WaitOptions::NOHANG) {
                Ok(Some(_one)) => {}
                // Killed, and not gone yet.
                Ok(None) => sleep(REAP_PAUSE).await,
                // No child of ours is in the group: everywhere but in a container that holds at once.
                Err(_) => return,
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // The only error is that the group is gone already, which is what is wanted.
        let _gone = kill_process_group(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
        }
    }
}

/// This very binary, even when its file has been replaced; it becomes the program under the same process id.
///
/// The kernel watches the thread that starts the process, not kapok as a whole: the executor's workers live as long as
/// kapok does, and nothing may move them aside with `block_in_place`.
fn guarded(program: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("kapok")
        .arg(crate::guard::NAME)
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(program);
    command
}

fn ended(status: ExitStatus, last_line: &str) -> String {
    if status.code() == Some(crate::guard::CANNOT_START) && !last_line.is_empty() {
        return last_line.trim_start_matches("error: ").to_owned();
    }
    // "exit status: 1", "signal: 9 (SIGKILL)": the standard library's own words.
    let said = if last_line.is_empty() {
        String::new()
    } else {
        format!("; it said: {last_line}")
    };
    format!("its process ended with {status}{said}")
}
