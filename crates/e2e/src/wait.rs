//! Waiting for a condition instead of for a time.

use std::time::Duration;

use base::{Clock, Deadline};

/// Long enough for a loaded two-core machine; only a failing test ever waits this long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until the answer is there.
///
/// # Panics
/// When [`PATIENCE`] runs out.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, ask).unwrap_or_else(|| panic_late(what))
}

/// Asks until the answer is there or the time is up.
pub fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = Clock::real();
    let deadline = Deadline::after(clock.now(), patience);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if deadline.passed(clock.now()) {
            return None;
        }
        pause();
    }
}

/// Between two looks at something that cannot wake us: a process, a log, a socket.
#[expect(
    clippy::disallowed_methods,
    reason = "the one poll of the tests, on a test's own thread, always under a deadline"
)]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

#[expect(clippy::panic, reason = "a test helper fails its test")]
fn panic_late(what: &str) -> ! {
    panic!("still waiting after {PATIENCE:?}: {what}")
}
