use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rten::ThreadPool;

/// rten's thread pools, lent for one call at a time and shared by all models: a pool a lane would mean threads without
/// end. As many exist as calls ever ran at once, and the runtime bounds those by the core budget.
#[derive(Default)]
pub(super) struct Pools(Mutex<Vec<Idle>>);

/// More idle threads than this are let go; as many as the calls of a large machine keep busy at once.
const IDLE_THREADS_MAX: usize = 64;

struct Idle {
    threads: usize,
    pool: Arc<ThreadPool>,
}

impl Pools {
    /// Runs a call with a pool of so many threads. A call that panics takes its pool with it.
    pub(super) fn lend<T>(&self, threads: usize, call: impl FnOnce(Arc<ThreadPool>) -> T) -> T {
        let idle = {
            let mut pools = self.0.lock();
            let place = pools.iter().position(|idle| idle.threads == threads);
            place.map(|place| pools.swap_remove(place).pool)
        };
        let pool = idle.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(threads)));
        let result = call(Arc::clone(&pool));
        let mut pools = self.0.lock();
        let idle: usize = pools.iter().map(|idle| idle.threads).sum();
        // Pools of another size are of models that are gone or wait; they must not pile up.
        if idle + threads > IDLE_THREADS_MAX.max(threads) {
            pools.clear();
        }
        pools.push(Idle { threads, pool });
        result
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools")
            .field("idle", &self.0.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_one_after_the_other_share_a_pool() {
        let pools = Pools::default();
        let first = pools.lend(1, |pool| Arc::as_ptr(&pool));
        let again = pools.lend(1, |pool| Arc::as_ptr(&pool));
        assert_eq!(first, again);
        pools.lend(1, |outer| {
            pools.lend(1, |inner| assert!(!Arc::ptr_eq(&outer, &inner)));
            pools.lend(2, |other| assert!(!Arc::ptr_eq(&outer, &other)));
        });
        assert_eq!(pools.0.lock().len(), 3);
    }
}
