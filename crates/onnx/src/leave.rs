//! The end of a process that has loaded engines.

/// Ends the process at once, with nothing that libraries registered for its end. They free there what threads of theirs
/// and of ours may still use: a model that loads, a call that runs. What is buffered must have been written before.
#[expect(
    unsafe_code,
    reason = "the standard library only has the exit that runs handlers"
)]
pub fn leave(code: u8) -> ! {
    // SAFETY: may be called at any time from any thread, and never returns.
    unsafe { libc::_exit(code.into()) }
}
