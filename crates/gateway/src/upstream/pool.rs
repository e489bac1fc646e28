use std::time::{Duration, Instant};

use parking_lot::Mutex;

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
    parts: [Mutex<Vec<Http1>>; PARTS],
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

    fn own(&self) -> Option<&Mutex<Vec<Http1>>> {
        self.parts.get(base::shard() % PARTS)
    }

    /// The newest idle connection, if one is young enough. It may have been closed since: ask it.
    pub(crate) fn take(&self, now: Instant) -> Option<Http1> {
        let (newest, old);
        {
            let mut idle = self.own()?.lock();
            old = too_old(&mut idle, now);
            newest = idle.pop();
        }
        drop(old);
        newest
    }

    /// Keeps a connection whose last answer was read to its end; when full it is closed.
    pub(crate) fn give(&self, mut connection: Http1, now: Instant) {
        connection.rest(now);
        let old;
        {
            let Some(own) = self.own() else { return };
            let mut idle = own.lock();
            old = too_old(&mut idle, now);
            if idle.len() < self.idle_max {
                idle.push(connection);
            }
        }
        drop(old);
    }

    /// Closes what has been idle too long: without a request nobody else looks.
    pub(crate) fn sweep(&self, now: Instant) {
        for part in &self.parts {
            let old = too_old(&mut part.lock(), now);
            drop(old);
        }
    }

    pub(crate) fn clear(&self) {
        for part in &self.parts {
            let all = std::mem::take(&mut *part.lock());
            drop(all);
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
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
    use base::Clock;
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::Address;
    use crate::upstream::http1::Stream;
    use crate::upstream::tls::Offer;

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
