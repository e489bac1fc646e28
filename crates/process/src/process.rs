//! One process in a group of its own, with everything that it starts, as seen from kapok.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Line;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpgid};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{sleep, timeout};

use crate::keeper::{self, Word};
use crate::output::{Output, Sink};

/// For the keeper to start the process; it does nothing else.
const START: Duration = Duration::from_secs(30);

/// After its end: how long what it printed last may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Between two looks for what is left of the group.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// What runs the keeper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keeper {
    /// kapok's own binary, as a hidden command.
    #[default]
    Process,
    /// Tests are not kapok's binary.
    #[cfg(any(test, feature = "testing"))]
    Thread,
}

/// What is to be started, and how.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    /// Variables of kapok's own environment that are nobody else's business.
    pub hidden: &'a [&'a str],
    pub working_dir: Option<&'a Path>,
    /// Between SIGTERM and SIGKILL when kapok is gone.
    pub patience: Duration,
    pub keeper: Keeper,
    pub sink: Sink,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// None when its keeper is gone, and it with that.
    status: Option<ExitStatus>,
    last_line: String,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    pub fn signal(&self) -> Option<i32> {
        self.status?.signal()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => f.write_str(&ended(status, &self.last_line)),
            None => f.write_str("its keeper has ended, and it with that"),
        }
    }
}

#[derive(Debug)]
pub struct Process {
    pid: i32,
    line: UnixStream,
    /// What of a word has come over the line.
    heard: Vec<u8>,
    /// The keeper's last word, once it has come: the raw wait status, or none if the keeper is gone.
    ended: Option<Option<i32>>,
    output: Output,
    streams: (OwnedFd, OwnedFd),
}

/// What another kapok needs to go on with a process.
#[derive(Debug)]
pub struct Handles<F> {
    pub line: F,
    pub stdout: F,
    pub stderr: F,
}

impl Process {
    pub async fn start(launch: Launch<'_>) -> Result<Self, String> {
        let Some((program, args)) = launch.command.split_first() else {
            return Err("its command is empty".to_owned());
        };
        if let Some(folder) = launch.working_dir
            && !folder.is_dir()
        {
            let folder = folder.display();
            return Err(format!("working folder `{folder}` is not there"));
        }
        let cannot = |error: io::Error| format!("`{program}` cannot be started: {error}");
        let (ours, theirs) = Line::pair().map_err(cannot)?;
        let (stdout, stdout_end) = io::pipe().map_err(cannot)?;
        let (stderr, stderr_end) = io::pipe().map_err(cannot)?;
        let mut command = match launch.keeper {
            Keeper::Process => keeper_command(program, launch.patience),
            #[cfg(any(test, feature = "testing"))]
            Keeper::Thread => Command::new(program),
        };
        for name in launch.hidden {
            command.env_remove(name);
        }
        command.args(args).envs(launch.env);
        if let Some(folder) = launch.working_dir {
            command.current_dir(folder);
        }
        command.stdout(stdout_end).stderr(stderr_end);
        match launch.keeper {
            Keeper::Process => run(command, theirs).map_err(cannot)?,
            #[cfg(any(test, feature = "testing"))]
            Keeper::Thread => {
                let patience = launch.patience;
                std::thread::spawn(move || keeper::keep(theirs, command, patience));
            }
        }
        let handles = Handles {
            line: OwnedFd::from(ours),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let mut process = Self::adopt(launch.sink, 0, handles).map_err(cannot)?;
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
    pub fn adopt(sink: Sink, pid: i32, handles: Handles<OwnedFd>) -> io::Result<Self> {
        let line = Line::from(handles.line);
        line.set_nonblocking(true)?;
        let output = Output::new(
            sink,
            Receiver::from_owned_fd(handles.stdout.try_clone()?)?,
            Receiver::from_owned_fd(handles.stderr.try_clone()?)?,
        );
        Ok(Self {
            pid,
            line: UnixStream::from_std(line)?,
            heard: Vec::new(),
            ended: None,
            output,
            streams: (handles.stdout, handles.stderr),
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn handles(&self) -> Handles<BorrowedFd<'_>> {
        Handles {
            line: self.line.as_fd(),
            stdout: self.streams.0.as_fd(),
            stderr: self.streams.1.as_fd(),
        }
    }

    /// Passes on what it prints until it ends, with everything that it left behind, and says how it ended. Cancel-safe: its
    /// end is remembered.
    pub async fn exited(&mut self) -> Exit {
        let status = self.ending().await;
        // Whatever left the group can hold the streams open for ever.
        let _in_time = timeout(LAST_WORDS, self.output.pass_on()).await;
        let _all = timeout(LAST_WORDS, self.reap()).await;
        Exit {
            status: status.map(ExitStatus::from_raw),
            last_line: self.output.last().to_owned(),
        }
    }

    /// The raw wait status; none if the keeper is gone.
    async fn ending(&mut self) -> Option<i32> {
        let mut silent = false;
        while self.ended.is_none() {
            let Self {
                line,
                heard,
                output,
                ..
            } = self;
            let word = tokio::select! {
                word = hear(line, heard) => word,
                // It may close its streams and go on.
                () = output.pass_on(), if !silent => {
                    silent = true;
                    continue;
                }
            };
            match word {
                Some(Word::Ended(status)) => self.ended = Some(Some(status)),
                Some(Word::Started(_) | Word::Failed(_)) => {}
                None => self.ended = Some(None),
            }
        }
        self.ended.flatten()
    }

    async fn hear(&mut self) -> Option<Word> {
        hear(&self.line, &mut self.heard).await
    }

    /// Asks the group to end, and after `patience` makes it.
    pub async fn stop(&mut self, patience: Duration) -> Exit {
        self.order(keeper::TERMINATE);
        if let Ok(exit) = timeout(patience, self.exited()).await {
            return exit;
        }
        self.order(keeper::KILL);
        self.exited().await
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
fn keeper_command(program: &str, patience: Duration) -> Command {
    let mut command = crate::guard::this_binary();
    command
        .arg(keeper::NAME)
        .arg(patience.as_millis().to_string())
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
    if status.code() == Some(i32::from(crate::guard::CANNOT_START)) && !last_line.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_told_however_often_the_question_is_dropped() {
        // What it leaves behind holds its streams open, so that there is something to wait for after its end.
        let command = [
            "/bin/sh",
            "-c",
            "setsid sh -c 'echo $$; exec sleep 600' & sleep 0.2; exit 3",
        ]
        .map(str::to_owned);
        let (said, hears) = std::sync::mpsc::sync_channel(1);
        let mut process = Process::start(Launch {
            command: &command,
            env: &BTreeMap::new(),
            hidden: &[],
            working_dir: None,
            patience: Duration::ZERO,
            keeper: Keeper::Thread,
            sink: Sink::Lines(std::sync::Arc::new(move |line| {
                said.send(line.to_owned()).expect("we listen");
            })),
        })
        .await
        .expect("a shell");
        let mut dropped = 0;
        let exit = loop {
            let limit = Duration::from_millis(if dropped < 100 { 5 } else { 30_000 });
            match timeout(limit, process.exited()).await {
                Ok(exit) => break exit,
                Err(_elapsed) => dropped += 1,
            }
            assert!(dropped <= 100, "its end was forgotten");
        };
        assert_eq!(exit.code(), Some(3));
        let line = hears.try_recv().expect("it printed a line");
        let left_behind = line.trim().parse().ok().and_then(Pid::from_raw);
        rustix::process::kill_process(left_behind.expect("its pid"), rustix::process::Signal::KILL)
            .expect("it lives");
    }
}
