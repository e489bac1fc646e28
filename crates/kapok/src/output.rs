//! What a command prints: one document for scripts, or text for people.

mod table;
mod yaml;

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::cli::Format;
use crate::config::Environment;

pub(crate) use table::Table;

/// Where a command's result goes, and in which form.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    style: Style,
    terminal: bool,
}

impl Printer {
    /// Coloured only when a person watches and has not said otherwise.
    pub(crate) fn stdout(format: Format, environment: &Environment) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            format,
            style: Style::new(terminal && environment.colour()),
            terminal,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether a person watches.
    pub(crate) fn terminal(&self) -> bool {
        self.terminal
    }

    /// Prints the document, or for people what `table` makes of it.
    pub(crate) fn print(
        &self,
        document: &Value,
        table: impl FnOnce(&Value, Style) -> String,
    ) -> io::Result<()> {
        let text = match self.format {
            // Csv and html are of one command, which writes them itself.
            Format::Table | Format::Csv | Format::Html => table(document, self.style),
            Format::Json => format!("{document:#}\n"),
            Format::Yaml => yaml::to_string(document),
        };
        self.write(&text)
    }

    /// Writes text as it is, at once.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    on: bool,
}

impl Style {
    pub(crate) fn new(on: bool) -> Self {
        Self { on }
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn quiet(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
