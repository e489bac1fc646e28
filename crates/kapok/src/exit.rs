//! How the process ends.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | it was tried and failed: the server said no, a model is broken, a check of `doctor` failed |
//! | 2 | the command line or the configuration is wrong; nothing was tried |
//! | 69 | no server answers at the address (`EX_UNAVAILABLE` of sysexits.h) |
//! | 127 | a managed process cannot be started (the hidden commands of the room `process` only) |

use std::io::{IsTerminal, Write};

use crate::config::Environment;
use crate::output::Style;

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 69,
    CannotStart = process::CANNOT_START,
}

/// What went wrong and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    pub(crate) fn unreachable(what: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, what)
    }

    pub(crate) fn cannot_start(what: impl Into<String>) -> Self {
        Self::new(Exit::CannotStart, what)
    }

    fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            error: anyhow::Error::msg(what.into()),
            hint: None,
        }
    }

    /// One line: what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            exit: Exit::Failed,
            error,
            hint: None,
        }
    }
}

impl From<process::Error> for Failure {
    fn from(error: process::Error) -> Self {
        match error {
            process::Error::NoProgram => Self::usage(error.to_string()),
            process::Error::CannotStart { .. } => Self::cannot_start(error.to_string()),
            process::Error::Failed(_) | process::Error::Io(_) => Self::failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::from(anyhow::Error::from(error))
    }
}

/// Ends a command: prints the failure, if it is one, and chooses the exit code.
pub(crate) fn report(outcome: Outcome, environment: &Environment) -> Exit {
    let Err(failure) = outcome else {
        return Exit::Done;
    };
    if is_broken_pipe(&failure.error) {
        // `kapok … | head` is not an error of ours.
        return Exit::Done;
    }
    let style = Style::new(std::io::stderr().is_terminal() && environment.colour());
    let mut text = format!(
        "{} {}\n",
        style.bad("error:"),
        base::chain(failure.error.as_ref())
    );
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{} {hint}\n", style.strong("  try:")));
    }
    print_to_stderr(&text);
    failure.exit
}

/// Prints clap's message: help and version to stdout with 0, mistakes to stderr with 2.
pub(crate) fn of_usage(message: &clap::Error) -> Exit {
    let printed = message.print();
    match (message.exit_code(), printed) {
        (0, _) => Exit::Done,
        _ => Exit::Usage,
    }
}

/// Ends the process, whatever still runs in it.
pub(crate) fn leave(exit: Exit) -> ! {
    // Lines are written as they come; what is left is a line without an end. Nobody is left to tell when it cannot be.
    let _gone = std::io::stdout().lock().flush();
    onnx::leave(exit as u8)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn print_to_stderr(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _gone = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure_and_the_rest_keep_their_code() {
        let environment = Environment::default();
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        for (failure, expected) in [
            (Failure::from(pipe), Exit::Done),
            (Failure::failed("x"), Exit::Failed),
            (Failure::usage("x"), Exit::Usage),
            (Failure::unreachable("x").hint("y"), Exit::Unreachable),
        ] {
            assert_eq!(report(Err(failure), &environment), expected);
        }
    }
}
