//! How lanes share a compiled model, and what that costs in threads.
//!
//! Without streams OpenVINO runs a call on its caller's thread, one at a time for each compiled model: no thread, but
//! every lane needs weights of its own. With streams, lanes share one compiled model, and the library keeps a thread for
//! each stream whether it is used or not. So streams are for models whose copies would cost more than idle threads, and
//! the process has a fixed number of them.

use std::sync::Arc;

use parking_lot::Mutex;
use runtime::engine::LoadOptions;

/// Below this, a copy of the weights costs less than a thread's stack and arenas.
const SHARED_BYTES_MIN: u64 = 16 << 20;

/// Threads for streams a core, over all models of the process.
const THREADS_PER_CORE: usize = 2;

/// What is left of the process's stream threads.
#[derive(Debug)]
pub(super) struct Streams(Arc<Mutex<usize>>);

/// One model's share.
#[derive(Debug)]
pub(super) struct Plan {
    lanes: usize,
    threads: usize,
    taken: Option<Taken>,
}

#[derive(Debug)]
struct Taken {
    left: Arc<Mutex<usize>>,
    threads: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.left.lock() += self.threads;
    }
}

impl Streams {
    pub(super) fn new(cores: usize) -> Self {
        Self(Arc::new(Mutex::new(cores.max(1) * THREADS_PER_CORE)))
    }

    /// Decides for a model of so many bytes.
    pub(super) fn plan(&self, options: LoadOptions, bytes: u64) -> Plan {
        let (lanes, threads) = (options.lanes.max(1), options.threads.max(1));
        let worth = threads > 1 || (lanes > 1 && bytes >= SHARED_BYTES_MIN);
        let taken = worth.then(|| self.take(lanes)).flatten();
        Plan {
            lanes,
            threads,
            taken,
        }
    }

    fn take(&self, threads: usize) -> Option<Taken> {
        let mut left = self.0.lock();
        *left = left.checked_sub(threads)?;
        Some(Taken {
            left: Arc::clone(&self.0),
            threads,
        })
    }
}

impl Plan {
    /// Whether all lanes use one compiled model.
    pub(super) fn shared(&self) -> bool {
        self.taken.is_some()
    }

    pub(super) fn streams(&self) -> usize {
        if self.shared() { self.lanes } else { 0 }
    }

    /// Of all streams together.
    pub(super) fn threads(&self) -> usize {
        if self.shared() {
            self.lanes * self.threads
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(lanes: usize, threads: usize) -> LoadOptions {
        LoadOptions {
            threads,
            lanes,
            ..LoadOptions::default()
        }
    }

    #[test]
    fn only_large_models_of_several_lanes_take_threads() {
        let streams = Streams::new(2);
        let check = |options, bytes, expected: (usize, usize)| {
            let plan = streams.plan(options, bytes);
            assert_eq!((plan.streams(), plan.threads()), expected);
        };
        check(options(1, 1), 1 << 30, (0, 1));
        check(options(2, 1), 1 << 20, (0, 1));
        check(options(2, 1), 1 << 30, (2, 2));
        check(options(1, 2), 1 << 20, (1, 2));
    }

    #[test]
    fn threads_are_bounded_whatever_is_loaded_and_come_back() {
        let streams = Streams::new(2);
        let models: Vec<_> = (0..20)
            .map(|_| streams.plan(options(2, 1), 1 << 30))
            .collect();
        assert_eq!(models.iter().map(Plan::streams).sum::<usize>(), 4);
        drop(models);
        assert!(streams.plan(options(4, 1), 1 << 30).shared());
        assert!(!streams.plan(options(5, 1), 1 << 30).shared());
    }
}
