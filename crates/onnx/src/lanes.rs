//! What a model's lanes call: one thing for all of them, or one each.

use std::sync::Arc;

use parking_lot::Mutex;
use runtime::engine::EngineError;

/// The first is made at load, where a model shows whether it can be.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    shared: bool,
    /// Every lane's, or waiting for the first lane.
    first: Mutex<Option<Arc<T>>>,
}

impl<T> Lanes<T> {
    pub(crate) fn new(first: Arc<T>, shared: bool) -> Self {
        Self {
            shared,
            first: Mutex::new(Some(first)),
        }
    }

    /// What the next lane calls; `make` makes one more.
    pub(crate) fn next(
        &self,
        make: impl FnOnce() -> Result<Arc<T>, EngineError>,
    ) -> Result<Arc<T>, EngineError> {
        let mut first = self.first.lock();
        let made = if self.shared {
            first.clone()
        } else {
            first.take()
        };
        drop(first);
        made.map_or_else(make, Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_call_one_thing_or_one_each_and_none_is_made_in_vain() {
        for (shared, made) in [(true, 0), (false, 2)] {
            let lanes = Lanes::new(Arc::new(0), shared);
            let mut last = 0;
            let mut given = Vec::new();
            for _ in 0..3 {
                let next = lanes.next(|| {
                    last += 1;
                    Ok(Arc::new(last))
                });
                given.push(*next.expect("made"));
            }
            assert_eq!(last, made);
            assert_eq!(given, if shared { [0, 0, 0] } else { [0, 1, 2] });
        }
    }
}
