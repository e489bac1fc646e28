use std::fmt::Write as _;
use std::time::Duration;

/// What the receiver of an error can do about it. The map to HTTP and gRPC lives in `protocol::status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong; sending it again changes nothing.
    Invalid,
    /// No or wrong credentials.
    Unauthenticated,
    /// Known caller, not allowed.
    Denied,
    NotFound,
    /// The state moved under the caller; read again.
    Conflict,
    /// A bound was reached: queue, rate, size. Try later.
    Exhausted,
    /// What is needed is not there at the moment.
    Unavailable,
    /// The other side answered, but not in a way we can pass on.
    BadUpstream,
    Timeout,
    /// The caller went away.
    Cancelled,
    /// Asked for something this build does not do.
    Unsupported,
    /// Our fault.
    Internal,
}

/// Whether and when the same call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    No,
    Now,
    After(Duration),
}

/// An error and its causes on one line, outermost first. Display of each level describes that level only.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Writing to a String cannot fail.
        let _infallible = write!(text, ": {next}");
        cause = next.source();
    }
    text
}
