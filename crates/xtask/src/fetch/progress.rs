//! How far a download is: a line that rewrites itself for a person, a few plain lines for a log.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::workspace::now;

/// Below this nobody has time to watch.
const QUIET_BYTES_MAX: u64 = 1 << 20;

pub(crate) struct Progress {
    name: String,
    total: Option<u64>,
    first: u64,
    started: Instant,
    shown: Option<Instant>,
    quarter: u64,
    terminal: bool,
}

impl Progress {
    pub(crate) fn start(name: &str, have: u64, total: Option<u64>) -> Self {
        if have > 0 {
            eprintln!("  {name}: resuming at {}", mega(have));
        }
        Self {
            name: name.to_owned(),
            total,
            first: have,
            started: now(),
            shown: None,
            quarter: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn at(&mut self, have: u64) {
        let Some(total) = self.total.filter(|total| *total > QUIET_BYTES_MAX) else {
            return;
        };
        if self.terminal {
            let due = self
                .shown
                .is_none_or(|at| now().duration_since(at) > Duration::from_millis(100));
            if due {
                self.shown = Some(now());
                eprint!("\r\x1b[K  {}", self.line(have, total));
                // A progress line that cannot be shown is no reason to stop.
                let _shown = std::io::stderr().flush();
            }
        } else if have * 4 / total > self.quarter {
            self.quarter = have * 4 / total;
            eprintln!("  {}", self.line(have, total));
        }
    }

    pub(crate) fn done(&mut self, have: u64) {
        if self.terminal {
            eprintln!("\r\x1b[K  {}", self.line(have, self.total.unwrap_or(have)));
        } else if self.total.is_none_or(|total| total <= QUIET_BYTES_MAX) {
            eprintln!("  {}: {}", self.name, mega(have));
        }
    }

    fn line(&self, have: u64, total: u64) -> String {
        let millis = now().duration_since(self.started).as_millis().max(1);
        let per_second = u128::from(have - self.first) * 1000 / millis;
        format!(
            "{}: {:3} % of {}, {}/s",
            self.name,
            have * 100 / total.max(1),
            mega(total),
            mega(u64::try_from(per_second).unwrap_or(u64::MAX)),
        )
    }
}

/// Bytes for people.
pub(crate) fn mega(bytes: u64) -> String {
    if bytes < 100_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
