use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use base::ErrorKind;
use protocol::ApiError;

use crate::reply::Failure;

/// The work's outcome; a panic in it becomes a failure, so that the client gets an answer and the connection stays.
///
/// Unwind-safe: what panicked is not polled again, and what it borrowed has no rules between its fields that a panic
/// could break.
pub(super) async fn caught<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(polled) => polled,
            // What it says is for operators; the panic hook has written it.
            Err(_panic) => {
                let message = "the server failed at this request, which is a bug of the server";
                Poll::Ready(Err(ApiError::new(ErrorKind::Internal, message).into()))
            }
        },
    )
    .await
}
