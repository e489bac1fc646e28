//! How a line of the log is written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base::Clock;
use protocol::oip::settings::LogFormat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Format;

/// Which of the forms is in use.
#[derive(Debug, Default)]
pub(super) struct Shape(AtomicU8);

const TEXT: u8 = 0;
const JSON: u8 = 1;
const GLOG: u8 = 2;

impl Shape {
    pub(super) fn new(format: Format, lines: LogFormat) -> Self {
        let shape = Self::default();
        match format {
            Format::Json => shape.0.store(JSON, Ordering::Relaxed),
            Format::Text => shape.set(lines),
        }
        shape
    }

    pub(super) fn set(&self, lines: LogFormat) {
        let shape = match lines {
            LogFormat::Default => GLOG,
            LogFormat::Iso8601 => TEXT,
        };
        self.0.store(shape, Ordering::Relaxed);
    }
}

pub(super) struct Line(pub(super) Arc<Shape>);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.0.0.load(Ordering::Relaxed) {
            JSON => format().json().format_event(context, writer, event),
            GLOG => {
                write_glog_head(&mut writer, event)?;
                context.format_fields(writer.by_ref(), event)?;
                writeln!(writer)
            }
            _ => format().format_event(context, writer, event),
        }
    }
}

fn format() -> format::Format {
    format::format()
}

/// `I1122 05:42:25.123456 77 gateway.rs:61] `, in UTC.
fn write_glog_head(writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    let severity = match *metadata.level() {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO => 'I',
        _ => 'D',
    };
    let now = Clock::real().wall().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or(Duration::ZERO);
    let (_year, month, day) = base::date(now.as_secs() / 86_400);
    let second = now.as_secs() % 86_400;
    let file = metadata.file().unwrap_or_default();
    let file = file.rsplit('/').next().unwrap_or_default();
    write!(
        writer,
        "{severity}{month:02}{day:02} {:02}:{:02}:{:02}.{:06} {} {file}:{}] ",
        second / 3600,
        second / 60 % 60,
        second % 60,
        now.subsec_micros(),
        std::process::id(),
        metadata.line().unwrap_or_default(),
    )
}
