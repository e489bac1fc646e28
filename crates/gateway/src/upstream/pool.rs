use std::pin::pin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::http1::Http1;

/// An idle connection older than this is not used again: uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) close
/// theirs after 5 s, and a request that meets the closing may have been read or not.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// How often pools are looked through when no request does. Together with [`IDLE_MAX`] it bounds how long a socket that
/// the upstream has closed stays open.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(3);

/// Idle connections of one upstream, newest first: the rest grow old and are dropped, so the pool follows the load.
///
/// One part for each thread that serves connections of its own ([`base::shard`]): what one has opened wakes that one.
#[derive(Debug)]
pub(crate) struct Pool {
    /// In each part.
    idle_max: usize,
    parts: [Part; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    held: Mutex<Held>,
    /// Told of each connection that comes back while somebody waits.
    given: Notify,
}

#[derive(Debug, Default)]
struct Held {
    idle: Vec<Http1>,
    /// In [`Pool::given`] now.
    waiting: usize,
}

/// Beyond so many cores, two share a part.
const PARTS: usize = 16;

impl Pool {
    pub(crate) fn new(idle_max: usize) -> Self {
        Self {
            idle_max,
            parts: Default::default(),
        }
    }

    fn own(&self) -> Option<&Part> {
        self.parts.get(base::shard() % PARTS)
    }

    /// The newest idle connection, if one is young enough. It may have been closed since: ask it.
    pub(crate) fn take(&self, now: Instant) -> Option<Http1> {
        self.own()?.take(now)
    }

    /// The next connection that comes back here, for who opens one: that can take long (a backlog that is full drops the
    /// first packet, which is sent again after a second), while those who came before are done in a millisecond.
    ///
    /// Without order: a request that has just come may be quicker. Cancel-safe: what is not taken stays in the pool.
    pub(crate) async fn given(&self, now: Instant) -> Http1 {
        let Some(own) = self.own() else {
            return std::future::pending().await;
        };
        let _waiting = Waiting::at(own);
        loop {
            let mut given = pin!(own.given.notified());
            // Counts from here on, so that nothing is missed between looking and waiting.
            given.as_mut().enable();
            if let Some(connection) = own.take(now) {
                return connection;
            }
            given.await;
        }
    }

    /// Keeps a connection whose last answer was read to its end; when full it is closed.
    pub(crate) fn give(&self, mut connection: Http1, now: Instant) {
        connection.rest(now);
        let (old, awaited);
        let Some(own) = self.own() else { return };
        {
            let mut held = own.held.lock();
            old = too_old(&mut held.idle, now);
            if held.idle.len() < self.idle_max {
                held.idle.push(connection);
            }
            awaited = held.waiting > 0;
        }
        if awaited {
            own.given.notify_one();
        }
        drop(old);
    }

    /// Closes what has been idle too long: without a request nobody else looks.
    pub(crate) fn sweep(&self, now: Instant) {
        for part in &self.parts {
            let old = too_old(&mut part.held.lock().idle, now);
            drop(old);
        }
    }

    pub(crate) fn clear(&self) {
        for part in &self.parts {
            let all = std::mem::take(&mut part.held.lock().idle);
            drop(all);
        }
    }

    pub(crate) fn idle(&self) -> usize {
        let idle = |part: &Part| part.held.lock().idle.len();
        self.parts.iter().map(idle).sum()
    }
}

impl Part {
    fn take(&self, now: Instant) -> Option<Http1> {
        let (newest, old);
        {
            let mut held = self.held.lock();
            old = too_old(&mut held.idle, now);
            newest = held.idle.pop();
        }
        drop(old);
        newest
    }
}

/// Somebody who waits for a connection to come back.
struct Waiting<'a>(&'a Part);

impl<'a> Waiting<'a> {
    fn at(part: &'a Part) -> Self {
        part.held.lock().waiting += 1;
        Self(part)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.held.lock().waiting -= 1;
    }
}

/// The front of the pool that is not used again, to be closed once the lock is given up. Connections lie in the order
/// in which they came to rest.
fn too_old(idle: &mut Vec<Http1>, now: Instant) -> Vec<Http1> {
    let is_old = |connection: &Http1| {
        let since = connection.idle_since();
        since.is_none_or(|since| now.saturating_duration_since(since) >= IDLE_MAX)
    };
    // Mostly the oldest is young enough, and no other has to be brought into the cache.
    if !idle.first().is_some_and(is_old) {
        return Vec::new();
    }
    let old = idle.partition_point(is_old);
    idle.drain(..old).collect()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use base::Clock;
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::Address;
    use crate::upstream::http1::Stream;
    use crate::upstream::tls::Offer;

    #[tokio::test]
    async fn who_waits_takes_what_comes_back_and_who_has_gone_takes_nothing() {
        let (_listener, mut opened) = connections(2).await;
        let now = Clock::manual().now();
        let pool = Pool::new(10);
        let mut gone = Box::pin(pool.given(now));
        let mut stays = Box::pin(pool.given(now));
        for waiting in [&mut gone, &mut stays] {
            assert!(polled(waiting).await.is_none(), "nothing is there");
        }
        pool.give(opened.remove(0), now);
        drop(gone);
        assert!(polled(&mut stays).await.is_some(), "told instead");
        drop(stays);
        pool.give(opened.remove(0), now);
        assert_eq!(pool.idle(), 1, "kept for who comes next");
        assert!(polled(&mut Box::pin(pool.given(now))).await.is_some());
    }

    async fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    async fn connections(count: usize) -> (TcpListener, Vec<Http1>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let address = Address::parse(&url).expect("a URL");
        let mut opened = Vec::new();
        for _ in 0..count {
            let stream = Stream::connect(&address, Offer::Http1).await;
            opened.push(Http1::open(stream.expect("a backlog")));
        }
        (listener, opened)
    }

    #[tokio::test]
    async fn a_trickle_keeps_one_connection_of_many() {
        let (_listener, opened) = connections(3).await;
        let start = Clock::manual().now();
        let pool = Pool::new(10);
        for connection in opened {
            pool.give(connection, start);
        }
        let second = Duration::from_secs(1);
        for step in 1..=8 {
            let now = start + second * step;
            let newest = pool.take(now).expect("used a second ago");
            pool.give(newest, now);
            let expected = if now < start + IDLE_MAX { 3 } else { 1 };
            assert_eq!(pool.idle(), expected, "after {step} s");
        }
    }

    #[tokio::test]
    async fn silence_empties_the_pool() {
        let (_listener, opened) = connections(2).await;
        let start = Clock::manual().now();
        let pool = Pool::new(10);
        let mut gap = Duration::ZERO;
        for connection in opened {
            pool.give(connection, start + gap);
            gap += Duration::from_secs(1);
        }
        pool.sweep(start + IDLE_MAX);
        assert_eq!(pool.idle(), 1);
        pool.sweep(start + IDLE_MAX + gap);
        assert_eq!(pool.idle(), 0);
    }
}
