//! The log: one line an event on standard error or in a file, for people or for machines. What is logged, and how a line
//! begins, can be changed while it runs.

mod line;

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::oip::settings::{LogChange, LogSettings};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{EnvFilter, reload};

use line::{Line, Shape};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the log starts with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub format: Format,
    /// Of the form `info,gateway=debug`.
    pub filter: String,
    /// Its `file` is not looked at; `file` below is.
    pub settings: LogSettings,
    /// Written to its end; none means standard error.
    pub file: Option<PathBuf>,
}

/// The process's log, to look at and to change. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    filter: String,
    shape: Arc<Shape>,
    settings: Mutex<LogSettings>,
    /// None where another log is installed, as in tests: then only the settings are kept.
    installed: Option<reload::Handle<Switched, Registry>>,
}

/// Rooms of ours: what Triton calls verbose is what these say beyond `info`, not what every library does.
const ROOMS: [&str; 8] = [
    "kapok",
    "gateway",
    "runtime",
    "onnx",
    "batch",
    "text",
    "telemetry",
    "protocol",
];

impl Logs {
    /// Installs the process's log. The second call in a process installs nothing.
    pub fn init(options: Options) -> Result<Self, LogError> {
        let mut settings = options.settings;
        let writer = match &options.file {
            None => BoxMakeWriter::new(std::io::stderr),
            // Each line is one write, and an appending write is whole.
            Some(path) => BoxMakeWriter::new(append(path)?),
        };
        settings.file = options.file.as_deref().map_or_else(String::new, shown);
        let shape = Arc::new(Shape::new(options.format, settings.format));
        let switched = Switched::new(&options.filter, &settings)?;
        let (switched, handle) = reload::Layer::new(switched);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(options.file.is_none() && std::io::stderr().is_terminal())
            .event_format(Line(Arc::clone(&shape)))
            .with_writer(writer);
        let subscriber = Registry::default().with(switched).with(lines);
        let installed = tracing::subscriber::set_global_default(subscriber);
        Ok(Self(Arc::new(Shared {
            filter: options.filter,
            shape,
            settings: Mutex::new(settings),
            installed: installed.is_ok().then_some(handle),
        })))
    }

    /// One that is installed nowhere.
    pub fn detached() -> Self {
        Self(Arc::new(Shared {
            filter: String::new(),
            shape: Arc::default(),
            settings: Mutex::default(),
            installed: None,
        }))
    }

    pub fn settings(&self) -> LogSettings {
        self.0.settings.lock().clone()
    }

    /// Changes what is logged from the next event on; answers all settings.
    pub fn change(&self, change: &LogChange) -> LogSettings {
        let mut settings = self.0.settings.lock();
        settings.info = change.info.unwrap_or(settings.info);
        settings.warning = change.warning.unwrap_or(settings.warning);
        settings.error = change.error.unwrap_or(settings.error);
        settings.verbose_level = change.verbose_level.unwrap_or(settings.verbose_level);
        if let Some(format) = change.format {
            settings.format = format;
            self.0.shape.set(format);
        }
        // The filter was good at the start, and what is added is ours.
        if let (Some(handle), Ok(switched)) =
            (&self.0.installed, Switched::new(&self.0.filter, &settings))
        {
            // Fails only when the log is gone.
            let _reloaded = handle.reload(switched);
        }
        settings.clone()
    }
}

fn append(path: &Path) -> Result<File, LogError> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map_err(|source| LogError::File {
        path: path.to_owned(),
        source,
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Triton's switches in front of our filter.
#[derive(Debug)]
struct Switched {
    filter: EnvFilter,
    info: bool,
    warning: bool,
    error: bool,
}

impl Switched {
    fn new(filter: &str, settings: &LogSettings) -> Result<Self, LogError> {
        let mut directives = filter.to_owned();
        let verbose = match settings.verbose_level {
            0 => None,
            1 => Some("debug"),
            _ => Some("trace"),
        };
        for room in ROOMS {
            let Some(level) = verbose else { break };
            directives.push_str(&format!(",{room}={level}"));
        }
        let filter = EnvFilter::try_new(directives.trim_start_matches(','))
            .map_err(|error| LogError::Filter(error.to_string()))?;
        Ok(Self {
            filter,
            info: settings.info,
            warning: settings.warning,
            error: settings.error,
        })
    }

    fn allows(&self, level: Level) -> bool {
        match level {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            Level::INFO => self.info,
            // Verbose lines have a switch of their own, which is the filter.
            _ => true,
        }
    }
}

impl<S: Subscriber> Layer<S> for Switched {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.allows(*metadata.level()) {
            Layer::<S>::register_callsite(&self.filter, metadata)
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.allows(*metadata.level()) && self.filter.enabled(metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&self.filter)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log filter is not valid: {0}; an example: `info,gateway=debug`")]
    Filter(String),
    #[error("log file `{}` cannot be opened", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use protocol::oip::settings::LogFormat;

    use super::*;

    /// The one test of this binary that installs a log.
    #[test]
    fn settings_change_what_is_written_while_it_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kapok.log");
        let logs = Logs::init(Options {
            filter: "info".to_owned(),
            file: Some(path.clone()),
            ..Options::default()
        })
        .expect("a good filter");
        assert_eq!(logs.settings().file, path.display().to_string());
        let event = |mark: &str| {
            tracing::info!("info {mark}");
            tracing::warn!("warning {mark}");
            tracing::error!("error {mark}");
            tracing::debug!(target: "gateway", "verbose {mark}");
        };
        event("first");
        let quiet = LogChange {
            info: Some(false),
            warning: Some(false),
            ..LogChange::default()
        };
        assert!(!logs.change(&quiet).info);
        event("quiet");
        let verbose = LogChange {
            verbose_level: Some(1),
            error: Some(false),
            format: Some(LogFormat::Default),
            ..LogChange::default()
        };
        assert_eq!(logs.change(&verbose).verbose_level, 1);
        event("verbose");
        let text = std::fs::read_to_string(&path).expect("written");
        for (line, written) in [
            ("info first", true),
            ("warning first", true),
            ("error first", true),
            ("verbose first", false),
            ("info quiet", false),
            ("warning quiet", false),
            ("error quiet", true),
            ("error verbose", false),
            ("verbose verbose", true),
        ] {
            assert_eq!(text.contains(line), written, "{line} in:\n{text}");
        }
        let last = text.lines().last().expect("a line");
        assert!(
            last.starts_with('D') && last.contains("] verbose verbose"),
            "{last}"
        );
    }

    #[test]
    fn a_wrong_filter_is_refused() {
        let options = Options {
            filter: "gateway=loud".to_owned(),
            ..Options::default()
        };
        let error = Logs::init(options).expect_err("no such level");
        assert!(error.to_string().contains("log filter"), "{error}");
    }
}
