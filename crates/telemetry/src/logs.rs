//! The log: one line an event on standard error, for people or for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's log. `filter` has the form `info,gateway=debug`. The second call in a process has no effect and
/// says so by returning false.
pub fn init(format: Format, filter: &str) -> Result<bool, FilterError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| FilterError(error.to_string()))?;
    let builder = Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        Format::Text => tracing::subscriber::set_global_default(builder.finish()),
        Format::Json => tracing::subscriber::set_global_default(builder.json().finish()),
    };
    Ok(installed.is_ok())
}

#[derive(Debug, thiserror::Error)]
#[error("log filter is not valid: {0}; an example: `info,gateway=debug`")]
pub struct FilterError(String);
