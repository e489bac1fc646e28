//! A command that ends by itself: what it said, and its exit code.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::kapok::fail;
use crate::log::Log;
use crate::{binary, wait};

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Runs a `kapok` command that ends by itself.
    pub fn kapok(args: &[&str]) -> Self {
        let mut command = Command::new(binary::path());
        command.args(args).stdin(Stdio::null());
        Self::of(command)
    }

    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (out, err) = (Log::default(), Log::default());
        let readers = [
            out.collect(child.stdout.take().expect("stdout is piped")),
            err.collect(child.stderr.take().expect("stderr is piped")),
        ];
        let status = wait::within(wait::PATIENCE, || child.try_wait().ok().flatten());
        let Some(status) = status else {
            let _already_gone = child.kill();
            let _reaped = child.wait();
            fail(&format!(
                "the command did not end: {command:?}\n{}\n{}",
                out.text(),
                err.text()
            ));
        };
        for reader in readers {
            reader.join().expect("the reader does not panic");
        }
        Self {
            code: status.code().unwrap_or(-1),
            stdout: out.text(),
            stderr: err.text(),
        }
    }

    /// The one JSON document of `--output json`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| fail(&format!("not JSON ({error}): {self:?}")))
    }
}
