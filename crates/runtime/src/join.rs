//! Waits for several futures at once, in the caller's task: dropping the wait drops them all.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// Resolves when all have succeeded, or with the first error; the rest are then dropped.
pub(crate) async fn join_all<E>(
    futures: impl Iterator<Item = impl Future<Output = Result<(), E>>>,
) -> Result<(), E> {
    let mut pending: Vec<Pin<Box<_>>> = futures.map(Box::pin).collect();
    // Every wake-up polls all of them: they are as many as lanes, so a handful.
    std::future::poll_fn(move |context| {
        let mut failed = None;
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                failed.get_or_insert(error);
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if pending.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
