use std::time::Duration;

/// A call of less runs where it is: leaving its thread and coming back takes as long on an idle core, and an async worker
/// may be kept for half a millisecond.
const QUICK: Duration = Duration::from_micros(200);

/// So many quick calls one after the other are no accident.
const CALLS: u32 = 16;

/// Whether a model's calls are over before others could take them.
#[derive(Debug, Default)]
pub(super) struct Quick {
    /// Quick calls since the last one that was not.
    calls: u32,
    /// The largest inputs among them.
    bytes: usize,
}

impl Quick {
    pub(super) fn learn(&mut self, bytes: usize, took: Duration) {
        if took > QUICK {
            *self = Self::default();
            return;
        }
        self.calls = self.calls.saturating_add(1);
        self.bytes = self.bytes.max(bytes);
    }

    /// Of calls that are larger than all before nothing is known.
    pub(super) fn expects(&self, bytes: usize) -> bool {
        self.calls >= CALLS && bytes <= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_quick_when_all_its_last_calls_were() {
        let mut quick = Quick::default();
        let mut learn = |count: u32, bytes, took| {
            for _ in 0..count {
                quick.learn(bytes, took);
            }
            [quick.expects(8), quick.expects(64)]
        };
        assert_eq!(learn(CALLS - 1, 8, QUICK), [false, false]);
        assert_eq!(learn(1, 8, QUICK), [true, false]);
        assert_eq!(learn(1, 64, Duration::ZERO), [true, true]);
        assert_eq!(learn(1, 8, QUICK * 2), [false, false]);
        assert_eq!(learn(CALLS, 8, Duration::ZERO), [true, false]);
    }
}
