//! The process between kapok and a process that it manages: its parent, which starts it, stops it when it is told to or
//! when nobody holds the other end of its line any more, and tells how it ended.
//!
//! The line is a socket, so it can be handed from one kapok to the next: the managed process outlives the kapok that
//! started it and none that owns it. A kapok that is killed closes the line; a keeper that is killed takes the process
//! along (see [`crate::guard`]).

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Error;

/// The name of the hidden command.
pub const NAME: &str = "keep-managed";

/// What kapok says: end it, and end it at once.
pub(super) const TERMINATE: u8 = b'T';
pub(super) const KILL: u8 = b'K';

/// What the keeper says, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Started(i32),
    Failed(String),
    /// The raw wait status.
    Ended(i32),
}

impl Word {
    fn line(&self) -> String {
        match self {
            Self::Started(pid) => format!("started {pid}\n"),
            Self::Failed(reason) => format!("failed {}\n", reason.replace('\n', " ")),
            Self::Ended(status) => format!("ended {status}\n"),
        }
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "started" => rest.parse().ok().map(Self::Started),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "ended" => rest.parse().ok().map(Self::Ended),
            _ => None,
        }
    }
}

/// The hidden command. Its standard input is the line; what it prints is what the process prints.
pub fn run(patience_ms: u64, command: &[String]) -> Result<(), Error> {
    let line = io::stdin().as_fd().try_clone_to_owned()?;
    let (program, args) = command.split_first().ok_or(Error::NoProgram)?;
    let mut command = crate::guard::command(program);
    command.args(args);
    keep(
        UnixStream::from(line),
        command,
        Duration::from_millis(patience_ms),
    )?;
    Ok(())
}

/// Returns when the process has ended and nobody is left of its group.
pub(super) fn keep(
    mut line: UnixStream,
    mut command: Command,
    patience: Duration,
) -> io::Result<()> {
    // A group of its own: Ctrl-C in the terminal is for kapok, which then has this one stopped in order.
    let spawned = command.stdin(Stdio::null()).process_group(0).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return line.write_all(Word::Failed(error.to_string()).line().as_bytes()),
    };
    let pid = child.id().cast_signed();
    let told = line.write_all(Word::Started(pid).line().as_bytes());
    let (over, ended) = channel();
    let orders = line.try_clone()?;
    if let Some(group) = Pid::from_raw(pid) {
        let thread = std::thread::Builder::new().name("line".to_owned());
        thread.spawn(move || obey(orders, group, patience, &ended))?;
        if told.is_err() {
            signal(group, Signal::KILL);
        }
        let status = child.wait()?;
        // The group's number stays taken as long as one of its processes lives, so this cannot meet strangers.
        signal(group, Signal::KILL);
        drop(over);
        // Nobody listening means that nobody wants to know.
        let _gone = line.write_all(Word::Ended(status.into_raw()).line().as_bytes());
    }
    Ok(())
}

fn obey(mut line: UnixStream, group: Pid, patience: Duration, ended: &Receiver<()>) {
    let mut order = [0];
    loop {
        match line.read(&mut order) {
            Ok(1..) if order == [TERMINATE] => signal(group, Signal::TERM),
            Ok(1..) if order == [KILL] => signal(group, Signal::KILL),
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    signal(group, Signal::TERM);
    // Ends early when the process has ended.
    let _over = ended.recv_timeout(patience);
    signal(group, Signal::KILL);
}

fn signal(group: Pid, signal: Signal) {
    // The only error is that the group is gone already, which is what is wanted.
    let _gone = kill_process_group(group, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_said() {
        for word in [
            Word::Started(7),
            Word::Failed("no such file".to_owned()),
            Word::Ended(256),
        ] {
            assert_eq!(Word::parse(word.line().trim_end()), Some(word));
        }
        assert_eq!(Word::parse("ended x"), None);
    }

    #[test]
    fn a_line_that_closes_ends_the_process_and_one_that_is_shared_does_not() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let other_holder = ours.try_clone().expect("a descriptor");
        let mut command = Command::new("/bin/sleep");
        command.arg("600");
        let keeper = std::thread::spawn(move || keep(theirs, command, Duration::from_secs(60)));
        drop(ours);
        let mut said = String::new();
        let mut holder = io::BufReader::new(other_holder);
        io::BufRead::read_line(&mut holder, &mut said).expect("a word");
        assert!(said.starts_with("started "), "{said}");
        assert!(!keeper.is_finished());
        drop(holder);
        keeper.join().expect("no panic").expect("it ends well");
    }
}
