use std::time::Duration;

use base::ErrorKind;
use protocol::ApiError;
use protocol::resource::Priority;

/// Why somebody got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    Full {
        wait: Option<Duration>,
    },
    /// It would come too late.
    TooLate {
        wait: Duration,
        /// How long it would have to take then at most, where there is an end.
        hold: Duration,
    },
    /// It was its turn, and too late to be done in time.
    NoTime {
        hold: Duration,
    },
    Displaced,
    /// Its patience is at an end.
    Waited,
}

impl Turned {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::TooLate { .. } | Self::NoTime { .. } => "too_late",
            Self::Displaced => "displaced",
            Self::Waited => "waited",
        }
    }

    /// When it is worth another try, as far as anything is known.
    pub(crate) fn wait(self) -> Duration {
        const UNKNOWN: Duration = Duration::from_secs(1);
        match self {
            Self::Full { wait } => wait.unwrap_or(UNKNOWN),
            Self::TooLate { wait, .. } => wait,
            Self::NoTime { hold } => hold,
            Self::Displaced | Self::Waited => UNKNOWN,
        }
    }

    /// What its caller is told. `by_limit` says that it was not the caller's patience that ended.
    pub(super) fn into_error(self, class: Priority, by_limit: bool) -> ApiError {
        let class = class.name();
        let (code, message) = match self {
            Self::Full { .. } => (
                "queue_full",
                format!("the line is full for requests of class `{class}`; try again later"),
            ),
            Self::TooLate { wait, hold } if hold.is_zero() => (
                "deadline_unmeetable",
                format!(
                    "its turn would come in about {} ms, which is later than the caller waits",
                    wait.as_millis()
                ),
            ),
            Self::TooLate { wait, hold } => (
                "deadline_unmeetable",
                format!(
                    "its turn would come in about {} ms, and requests like it take about {} ms, which is longer than the caller waits",
                    wait.as_millis(),
                    hold.as_millis()
                ),
            ),
            Self::NoTime { hold } => (
                "deadline_unmeetable",
                format!(
                    "its turn has come, and requests like it take about {} ms, which is longer than the caller still waits",
                    hold.as_millis()
                ),
            ),
            Self::Displaced => (
                "queue_displaced",
                format!(
                    "the line is full, and this request of class `{class}` gave way to a higher one"
                ),
            ),
            Self::Waited if by_limit => (
                "queue_timeout",
                "no place became free in the time that this route lets requests wait".to_owned(),
            ),
            Self::Waited => {
                let message = "the deadline passed while the request stood in line";
                return ApiError::new(ErrorKind::Timeout, message).with_code("deadline_exceeded");
            }
        };
        ApiError::new(ErrorKind::Unavailable, message)
            .with_code(code)
            .retry_after(self.wait())
    }
}
