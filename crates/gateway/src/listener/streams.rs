//! Where HTTP/2's requests run: at once on their connection's task, as far as they come without waiting, then each on a
//! task of its own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use base::at_once;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::task::coop::poll_proceed;

/// A small call that came whole with its head is answered before another task would have begun, and so are those behind
/// it: none of them takes memory for longer than its own turn. All of them leave in one write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        if has_time() {
            // Unwind-safe: what panicked is dropped, and costs its own stream only, as on a task of its own.
            let tried = catch_unwind(AssertUnwindSafe(|| at_once(stream.as_mut())));
            if !matches!(tried, Ok(Poll::Pending)) {
                return;
            }
        }
        // h2 streams are the connection's own work, cancelled with it; the supervised task is the connection.
        TokioExecutor::new().execute(stream);
    }
}

/// Whether the connection's task has run for less than tokio gives it in one go. Behind that, requests of one connection
/// are spread over all threads.
fn has_time() -> bool {
    let proceed = poll_proceed(&mut Context::from_waker(Waker::noop()));
    match proceed {
        Poll::Ready(proceed) => {
            proceed.made_progress();
            true
        }
        Poll::Pending => false,
    }
}
