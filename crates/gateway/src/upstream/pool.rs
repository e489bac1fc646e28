use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Connection;

/// An idle connection older than this is not used again: uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) close
/// theirs after 5 s, and a request that meets the closing may have been read or not.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Idle connections of one upstream, newest first: the rest grow old and are dropped, so the pool follows the load.
#[derive(Debug)]
pub(crate) struct Pool {
    idle_max: usize,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(idle_max: usize) -> Self {
        Self {
            idle_max,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// The newest idle connection, if one is young enough. It may have been closed since: ask it.
    pub(crate) fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let newest = idle.pop()?;
        let young = newest
            .idle_since()
            .is_some_and(|since| now.saturating_duration_since(since) < IDLE_MAX);
        if young {
            return Some(newest);
        }
        // The newest is too old, so all are.
        let old = std::mem::take(&mut *idle);
        drop(idle);
        drop(old);
        None
    }

    /// Keeps a connection whose last answer was read to its end; when full it is closed.
    pub(crate) fn give(&self, mut connection: Connection, now: Instant) {
        connection.rest(now);
        let mut idle = self.idle.lock();
        if idle.len() < self.idle_max {
            idle.push(connection);
        }
    }

    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.idle.lock());
        drop(all);
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.lock().len()
    }
}
