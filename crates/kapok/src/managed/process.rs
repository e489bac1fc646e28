//! One managed process in a group of its own, with everything that it starts, as seen from kapok.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Line;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use protocol::resource::ProcessSpec;
use rustix::process::{Pid, WaitOptions, waitpgid};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{sleep, timeout};

use super::keeper::{self, Word};
use super::output::Output;

/// For the keeper to start the process; it does nothing else.
const START: Duration = Duration::from_secs(30);

/// After its end: how long what it printed last may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Between two looks for what is left of the group.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// What runs the keeper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Keeper {
    #[default]
    Process,
    /// Tests are not kapok's binary.
    #[cfg(test)]
    Thread,
}

#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    line: UnixStream,
    /// What of a word has come over the line.
    heard: Vec<u8>,
    output: Output,
    streams: (OwnedFd, OwnedFd),
}

/// What another kapok needs to go on with a process.
#[derive(Debug)]
pub(crate) struct Handles<F> {
    pub(crate) line: F,
    pub(crate) stdout: F,
    pub(crate) stderr: F,
}

impl Process {
    pub(super) async fn start(
        name: &str,
        spec: &ProcessSpec,
        keeper: Keeper,
    ) -> Result<Self, String> {
        let Some((program, args)) = spec.command.split_first() else {
            return Err("its command is empty".to_owned());
        };
        if let Some(folder) = &spec.working_dir
            && !folder.is_dir()
        {
            let folder = folder.display();
            return Err(format!("working folder `{folder}` is not there"));
        }
        let cannot = |error: io::Error| format!("`{program}` cannot be started: {error}");
        let (ours, theirs) = Line::pair().map_err(cannot)?;
        let (stdout, stdout_end) = io::pipe().map_err(cannot)?;
        let (stderr, stderr_end) = io::pipe().map_err(cannot)?;
        let mut command = match keeper {
            Keeper::Process => keeper_command(program, spec.stop_timeout_ms),
            #[cfg(test)]
            Keeper::Thread => Command::new(program),
        };
        command.args(args).envs(&spec.env);
        command.env_remove(crate::config::HANDOVER);
        if let Some(folder) = &spec.working_dir {
            command.current_dir(folder);
        }
        command.stdout(stdout_end).stderr(stderr_end);
        match keeper {
            Keeper::Process => run(command, theirs).map_err(cannot)?,
            #[cfg(test)]
            Keeper::Thread => {
                let patience = Duration::from_millis(spec.stop_timeout_ms);
                std::thread::spawn(move || keeper::keep(theirs, command, patience));
            }
        }
        let handles = Handles {
            line: OwnedFd::from(ours),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let mut process = Self::adopt(name, 0, handles).map_err(cannot)?;
        let first = timeout(START, process.hear());
        match first
            .await
            .map_err(|_elapsed| "its keeper does not start")?
        {
            Some(Word::Started(pid)) => process.pid = pid,
            Some(Word::Failed(reason)) => {
                return Err(format!("`{program}` cannot be started: {reason}"));
            }
            Some(Word::Ended(_)) | None => return Err("its keeper ended at once".to_owned()),
        }
        Ok(process)
    }

    /// Goes on with a process that another kapok, or this one, has started.
    pub(crate) fn adopt(name: &str, pid: i32, handles: Handles<OwnedFd>) -> io::Result<Self> {
        let line = Line::from(handles.line);
        line.set_nonblocking(true)?;
        let output = Output::new(
            name,
            Receiver::from_owned_fd(handles.stdout.try_clone()?)?,
            Receiver::from_owned_fd(handles.stderr.try_clone()?)?,
        );
        Ok(Self {
            pid,
            line: UnixStream::from_std(line)?,
            heard: Vec::new(),
            output,
            streams: (handles.stdout, handles.stderr),
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn handles(&self) -> Handles<BorrowedFd<'_>> {
        Handles {
            line: self.line.as_fd(),
            stdout: self.streams.0.as_fd(),
            stderr: self.streams.1.as_fd(),
        }
    }

    /// Logs what it prints until it ends, with everything that it left behind, and says how it ended. Cancel-safe up to
    /// its end.
    pub(super) async fn exited(&mut self) -> String {
        let status = self.ending().await;
        // Whatever left the group can hold the streams open for ever.
        let _in_time = timeout(LAST_WORDS, self.output.log()).await;
        let _all = timeout(LAST_WORDS, self.reap()).await;
        match status {
            Some(status) => ended(ExitStatus::from_raw(status), self.output.last()),
            None => "its keeper has ended, and it with that".to_owned(),
        }
    }

    /// The raw wait status; none if the keeper is gone.
    async fn ending(&mut self) -> Option<i32> {
        let mut logged = false;
        loop {
            let Self {
                line,
                heard,
                output,
                ..
            } = self;
            let word = tokio::select! {
                word = hear(line, heard) => word,
                // It may close its streams and go on.
                () = output.log(), if !logged => {
                    logged = true;
                    continue;
                }
            };
            match word {
                Some(Word::Ended(status)) => return Some(status),
                Some(Word::Started(_) | Word::Failed(_)) => {}
                None => return None,
            }
        }
    }

    async fn hear(&mut self) -> Option<Word> {
        hear(&self.line, &mut self.heard).await
    }

    /// Asks the group to end, and after `patience` makes it.
    pub(super) async fn stop(&mut self, patience: Duration) {
        self.order(keeper::TERMINATE);
        if timeout(patience, self.exited()).await.is_err() {
            self.order(keeper::KILL);
            self.exited().await;
        }
    }

    /// As the first process of a container kapok inherits what its children leave behind, and only it can bury them.
    async fn reap(&self) {
        let Some(group) = Pid::from_raw(self.pid) else {
            return;
        };
        loop {
            match waitpgid(group, WaitOptions::NOHANG) {
                Ok(Some(_one)) => {}
                // Killed, and not gone yet.
                Ok(None) => sleep(REAP_PAUSE).await,
                // No child of ours is in the group: everywhere but in a container that holds at once.
                Err(_) => return,
            }
        }
    }

    fn order(&self, order: u8) {
        // One byte always fits; a keeper that is gone has nothing to obey.
        let _gone = self.line.try_write(&[order]);
    }
}

/// The next word; none when the keeper is gone. Cancel-safe: what has come of a word stays in `heard`.
async fn hear(line: &UnixStream, heard: &mut Vec<u8>) -> Option<Word> {
    loop {
        if let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let word: Vec<u8> = heard.drain(..=end).collect();
            let word = String::from_utf8_lossy(&word);
            if let Some(word) = Word::parse(word.trim_end()) {
                return Some(word);
            }
            continue;
        }
        line.readable().await.ok()?;
        let mut buffer = [0; 512];
        match line.try_read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => heard.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

/// This very binary, even when its file has been replaced, as the program's keeper.
fn keeper_command(program: &str, patience_ms: u64) -> Command {
    let mut command = crate::guard::this_binary();
    command
        .arg(keeper::NAME)
        .arg(patience_ms.to_string())
        .arg("--")
        .arg(program);
    command
}

fn run(command: Command, line: Line) -> io::Result<()> {
    let mut command = tokio::process::Command::from(command);
    command
        .stdin(Stdio::from(OwnedFd::from(line)))
        .process_group(0);
    // Let go at once: the runtime buries it when it has ended, and its line tells us all else.
    command.spawn().map(drop)
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
