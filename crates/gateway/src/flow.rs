use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

/// Items that wait for whoever takes them; then the work waits too.
const WAITING_MAX: usize = 4;

/// Items that are made while they are taken: the work goes on only when the next one is asked for, and dropping this
/// drops it.
pub(crate) struct Flow<T> {
    /// None once it has ended.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    items: mpsc::Receiver<T>,
    broken: bool,
}

impl<T> fmt::Debug for Flow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("works", &self.work.is_some())
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Flow<T> {
    pub(crate) fn new<F>(work: impl FnOnce(mpsc::Sender<T>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, items) = mpsc::channel(WAITING_MAX);
        Self {
            work: Some(Box::pin(work(sender))),
            items,
            broken: false,
        }
    }

    /// The next item; none at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            let item = self.items.poll_recv(cx);
            let Some(work) = &mut self.work else {
                return item;
            };
            if let Poll::Ready(Some(item)) = item {
                return Poll::Ready(Some(item));
            }
            // Unwind-safe: what panicked is not polled again.
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Pending) => return self.items.poll_recv(cx),
                Ok(Poll::Ready(())) => self.work = None,
                Err(_panic) => {
                    self.work = None;
                    self.broken = true;
                }
            }
        }
    }

    /// Whether it ended by a panic, and not as it should.
    pub(crate) fn broken(&self) -> bool {
        self.broken
    }
}
