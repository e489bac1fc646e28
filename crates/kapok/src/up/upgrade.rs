//! SIGUSR2: another binary takes over, without a moment in which nobody listens.
//!
//! The new process gets the listening sockets and the managed processes of this one; while it gets ready, this one serves
//! as ever. One that does not get ready is ended, and nothing has happened.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::director;
use super::handover::{Handed, Line, Message, Offered, out_of_turn};
use super::ports::Kept;
use crate::config::{Environment, HANDOVER};

/// From the processes' handing over until the new process accepts: it has loaded everything by then.
const LAST_STEP: Duration = Duration::from_secs(30);

/// How this process was started, so that the next one is started alike.
#[derive(Debug)]
pub(super) struct Program {
    file: PathBuf,
    name: OsString,
    args: Vec<OsString>,
}

impl Program {
    /// The file that was named on the command line, as it will be then: replaced, or behind a link that points elsewhere.
    pub(super) fn this(environment: &Environment) -> io::Result<Self> {
        let mut args = std::env::args_os();
        let name = args.next().unwrap_or_else(|| "kapok".into());
        let named = PathBuf::from(&name);
        let file = if named.components().count() > 1 {
            std::path::absolute(&named)?
        } else {
            let found = name.to_str().and_then(|name| environment.program(name));
            match found {
                Some(found) => found,
                None => std::env::current_exe()?,
            }
        };
        let args = args.collect();
        Ok(Self { file, name, args })
    }

    fn start(&self, line: UnixStream) -> io::Result<Child> {
        Command::new(&self.file)
            .arg0(&self.name)
            .args(&self.args)
            .env(HANDOVER, "stdin")
            .stdin(Stdio::from(OwnedFd::from(line)))
            .spawn()
    }
}

/// Why this process goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the first process of a container ends the container: replace the container instead")]
    First,
    #[error("`{}` cannot be started", file.display())]
    Start { file: PathBuf, source: io::Error },
    #[error("the new process ended with {0} before it was ready; its own words are above")]
    Ended(String),
    #[error("the new process was not ready within {} ms (`upgradeTimeoutMs`)", .0.as_millis())]
    Late(Duration),
    #[error("the new process cannot be spoken with")]
    Line(#[from] io::Error),
}

/// Starts the program and hands everything over. Returns the new process's id; this process then has no managed process
/// any more, and whatever it has accepted is still its own to answer.
pub(super) async fn hand_over(
    program: &Program,
    kept: &Kept,
    director: &director::Handle,
) -> Result<u32, Error> {
    if std::process::id() == 1 {
        return Err(Error::First);
    }
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = program.start(theirs).map_err(|source| Error::Start {
        file: program.file.clone(),
        source,
    })?;
    let pid = child.id().unwrap_or_default();
    tracing::info!(pid, file = %program.file.display(), "upgrading: the new process is getting ready");
    let handed = steps(&Line::new(ours), kept, director, &mut child).await;
    if handed.is_err() {
        // It has nothing that anybody waits for.
        let _gone = child.start_kill();
        let _reaped = child.wait().await;
    }
    handed.map(|()| pid)
}

async fn steps(
    line: &Line,
    kept: &Kept,
    director: &director::Handle,
    child: &mut Child,
) -> Result<(), Error> {
    let patience = director.settings().upgrade_timeout;
    let (doors, sockets): (Vec<Offered>, Vec<_>) = kept.offered().unzip();
    line.patience(patience)?;
    line.send(&Message::Offer { doors }, &sockets)?;
    expect(line, child, patience, |message| {
        matches!(message, Message::Prepared)
    })
    .await?;
    let running = director.release().await;
    let given = async {
        line.send(&Message::Processes(running.len()), &[])?;
        for (name, upstream, adopted) in &running {
            let Some(process) = upstream.process.clone() else {
                continue;
            };
            let handed = Handed {
                name: name.clone(),
                url: upstream.url.clone(),
                process,
                pid: adopted.process.pid(),
                ready: adopted.ready,
            };
            let handles = adopted.process.handles();
            let descriptors = [handles.line, handles.stdout, handles.stderr];
            line.send(&Message::Process(Box::new(handed)), &descriptors)?;
        }
        expect(line, child, LAST_STEP, |message| {
            matches!(message, Message::Serving)
        })
        .await
    };
    let given: Result<(), Error> = given.await;
    if given.is_err() {
        director.resume(running).await;
    }
    given
}

/// Waits for this message, and no longer than the new process lives.
async fn expect(
    line: &Line,
    child: &mut Child,
    patience: Duration,
    wanted: impl Fn(&Message) -> bool,
) -> Result<(), Error> {
    let line = line.again()?;
    let heard = tokio::task::spawn_blocking(move || line.receive());
    let ended = |status: io::Result<std::process::ExitStatus>| match status {
        Ok(status) => Error::Ended(status.to_string()),
        Err(error) => Error::Line(error),
    };
    // Cancel-safe: who is not waited for any more is gone, and the line with it.
    let heard = tokio::select! {
        heard = timeout(patience, heard) => heard,
        status = child.wait() => return Err(ended(status)),
    };
    match heard {
        Err(_elapsed) => Err(Error::Late(patience)),
        Ok(Ok(Ok((message, _)))) if wanted(&message) => Ok(()),
        Ok(Ok(Ok((message, _)))) => Err(out_of_turn(&message).into()),
        // The line closes when the process ends, and that says more.
        Ok(Ok(Err(error))) => match timeout(Duration::from_secs(1), child.wait()).await {
            Ok(status) => Err(ended(status)),
            Err(_lives) if is_timeout(&error) => Err(Error::Late(patience)),
            Err(_lives) => Err(error.into()),
        },
        Ok(Err(panic)) => Err(io::Error::other(panic).into()),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The other side: what this process takes over.
#[derive(Debug)]
pub(super) struct Inherited {
    line: Line,
    pub(super) listeners: Vec<(Offered, OwnedFd)>,
}

impl Inherited {
    /// None unless this process was started to take over.
    pub(super) fn receive(environment: &Environment) -> io::Result<Option<Self>> {
        if !environment.takes_over {
            return Ok(None);
        }
        let line = io::stdin().as_fd().try_clone_to_owned()?;
        let line = Line::new(UnixStream::from(line));
        line.patience(LAST_STEP)?;
        match line.receive()? {
            (Message::Offer { doors }, sockets) => Ok(Some(Self {
                line,
                listeners: doors.into_iter().zip(sockets).collect(),
            })),
            (message, _) => Err(out_of_turn(&message)),
        }
    }

    /// Everything is loaded: now the processes.
    pub(super) fn processes(&self) -> io::Result<director::Running> {
        self.line.send(&Message::Prepared, &[])?;
        let (message, _) = self.line.receive()?;
        let Message::Processes(count) = message else {
            return Err(out_of_turn(&message));
        };
        let mut running = director::Running::new();
        for _ in 0..count {
            let (message, descriptors) = self.line.receive()?;
            let Message::Process(handed) = message else {
                return Err(out_of_turn(&message));
            };
            running.push(director::adopt(*handed, descriptors)?);
        }
        Ok(running)
    }

    /// This process accepts from now on.
    pub(super) fn serving(&self) -> io::Result<()> {
        self.line.send(&Message::Serving, &[])
    }
}
