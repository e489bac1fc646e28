use std::io::{IsTerminal, Write};

const WIDTH: usize = 30;

/// A bar on stderr while a person watches; nothing otherwise.
pub(super) struct Progress {
    done: usize,
    total: usize,
    shown: bool,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        let progress = Self {
            done: 0,
            total,
            shown: std::io::stderr().is_terminal(),
        };
        progress.draw();
        progress
    }

    pub(super) fn advance(&mut self) {
        self.done += 1;
        self.draw();
    }

    fn draw(&self) {
        if !self.shown {
            return;
        }
        let text = if self.done >= self.total {
            // Gone before the results come.
            "\r\x1b[K".to_owned()
        } else {
            let filled = WIDTH * self.done / self.total.max(1);
            let bar = "█".repeat(filled) + &"░".repeat(WIDTH - filled);
            format!("\r{bar} {}/{} runs", self.done, self.total)
        };
        let mut stderr = std::io::stderr().lock();
        // A bar that cannot be drawn is no reason to stop.
        let _gone = stderr
            .write_all(text.as_bytes())
            .and_then(|()| stderr.flush());
    }
}
