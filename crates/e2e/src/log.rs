//! The binary's log, collected while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

/// Lines so far. Bounded: a test that logs more than this has a bug of its own.
const LINES_MAX: usize = 100_000;

#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Reads until the other side closes.
    pub(crate) fn collect(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(&self.0);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                let Ok(line) = line else { break };
                let mut lines = lines.lock();
                if lines.len() < LINES_MAX {
                    lines.push(line);
                }
            }
        })
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().join("\n")
    }

    pub(crate) fn contains(&self, part: &str) -> bool {
        self.0.lock().iter().any(|line| line.contains(part))
    }

    /// Lines that mean trouble and that the test did not announce. A panic is never allowed.
    pub(crate) fn unexpected(&self, allowed: &[String]) -> Vec<String> {
        let troubling = |line: &&String| {
            let panicked = line.contains("panicked at");
            let warns = line.contains(" WARN ") || line.contains(" ERROR ");
            panicked || (warns && !allowed.iter().any(|part| line.contains(part)))
        };
        self.0.lock().iter().filter(troubling).cloned().collect()
    }
}
