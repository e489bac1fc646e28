//! Work that is tried where it comes up, before it gets a task.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Polls once, for whoever polls again from a task of the work's own if it is not done: until then nobody is woken.
///
/// Most requests are done then, and a task, its way through the scheduler and the wake at its end cost more than a small
/// one itself.
pub fn at_once<T>(work: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    work.poll(&mut Context::from_waker(Waker::noop()))
}

/// Whether this is tried by [`at_once`], on a task that has other work.
pub async fn is_tried() -> bool {
    poll_fn(|cx| Poll::Ready(tried(cx))).await
}

/// Goes on in a task of its own, if this is tried by [`at_once`].
pub async fn in_own_task() {
    let own = |cx: &mut Context<'_>| match tried(cx) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    };
    poll_fn(own).await;
}

fn tried(cx: &Context<'_>) -> bool {
    cx.waker().will_wake(Waker::noop())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Wake;

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: std::sync::Arc<Self>) {}
    }

    #[test]
    fn work_that_wants_its_own_task_goes_on_there() {
        let mut work = pin!(async {
            let tried = is_tried().await;
            in_own_task().await;
            (tried, is_tried().await)
        });
        assert!(at_once(work.as_mut()).is_pending());
        let waker = Waker::from(std::sync::Arc::new(Task));
        let polled = work.poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready((true, false)));
    }
}
