use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::attempt::{Answered, Fault};
use crate::alarm::Alarm;
use crate::upstream::Upstream;

/// Attempts of one request that are under way. Dropping it gives up all of them.
#[derive(Default)]
pub(super) struct Race {
    runners: Vec<Runner>,
}

pub(super) struct Runner {
    pub(super) about: About,
    attempt: Pin<Box<dyn Future<Output = Result<Answered, Fault>> + Send>>,
}

/// What is known of an attempt besides its end.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) upstream: Arc<Upstream>,
    pub(super) started_at: Instant,
    /// No upstream is waited for longer than this.
    pub(super) until: Instant,
}

impl Race {
    pub(super) fn start(
        &mut self,
        about: About,
        attempt: impl Future<Output = Result<Answered, Fault>> + Send + 'static,
    ) {
        self.runners.push(Runner {
            about,
            attempt: Box::pin(attempt),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runners.is_empty()
    }

    /// The next attempt that ends; none if none does until `due`.
    pub(super) async fn next(
        &mut self,
        alarm: &mut Alarm,
        due: Instant,
    ) -> Option<(About, Result<Answered, Fault>)> {
        let runners = &mut self.runners;
        let ended = poll_fn(|cx| {
            for index in 0..runners.len() {
                if let Poll::Ready(end) = runners[index].attempt.as_mut().poll(cx) {
                    let runner = runners.remove(index);
                    return Poll::Ready((runner.about, end));
                }
            }
            Poll::Pending
        });
        alarm.within(due, ended).await
    }

    /// When the first of them has been waited for long enough.
    pub(super) fn first_limit(&self) -> Option<Instant> {
        self.runners.iter().map(|runner| runner.about.until).min()
    }

    pub(super) fn latest_start(&self) -> Option<Instant> {
        self.runners
            .iter()
            .map(|runner| runner.about.started_at)
            .max()
    }

    /// One that has been waited for long enough; it is given up when dropped.
    pub(super) fn late(&mut self, now: Instant) -> Option<Runner> {
        let late = self
            .runners
            .iter()
            .position(|runner| runner.about.until <= now)?;
        Some(self.runners.remove(late))
    }
}
