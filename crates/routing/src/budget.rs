use std::sync::atomic::{AtomicU32, Ordering};

/// In thousandths, so that a share of a token needs no floating point.
const TOKEN: u32 = 1000;

/// Room for the requests in flight at one upstream when it dies, all of which are asked of others at once.
const TOKENS_MAX: u32 = 100;

/// What an answer earns: a fifth of another attempt. So of a group whose every second request fails, two retries in
/// five go through, and the breaker has long stopped asking the one that fails.
const EARNED: u32 = TOKEN / 5;

/// How many attempts beyond the first a group of upstreams has to spare; retries, hedges and rescues all draw on it.
///
/// Filled by answers, not by requests or by time: under a total outage nothing is earned, so beyond the first hundred
/// each request costs one attempt.
#[derive(Debug)]
pub struct Budget {
    thousandths: AtomicU32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            thousandths: AtomicU32::new(TOKENS_MAX * TOKEN),
        }
    }
}

impl Budget {
    /// Somebody answered.
    pub fn earn(&self) {
        // Full almost always; then nothing is written, and no core waits for another's cache line.
        if self.thousandths.load(Ordering::Relaxed) >= TOKENS_MAX * TOKEN {
            return;
        }
        self.change(|have| Some((have + EARNED).min(TOKENS_MAX * TOKEN)));
    }

    /// Takes one attempt's worth; false if there is none.
    pub fn spend(&self) -> bool {
        self.change(|have| have.checked_sub(TOKEN))
    }

    /// What was taken was not needed after all.
    pub fn give_back(&self) {
        self.change(|have| Some((have + TOKEN).min(TOKENS_MAX * TOKEN)));
    }

    /// Whole attempts left.
    pub fn left(&self) -> u32 {
        self.thousandths.load(Ordering::Relaxed) / TOKEN
    }

    fn change(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        self.thousandths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_a_total_outage_attempts_are_a_tenth_more_than_requests_at_most() {
        let budget = Budget::default();
        let requests = 10_000;
        let mut attempts = 0;
        for _ in 0..requests {
            attempts += 1;
            while budget.spend() {
                attempts += 1;
            }
        }
        assert!(attempts * 10 <= requests * 11, "{attempts}");
    }

    #[test]
    fn answers_earn_retries_back() {
        let budget = Budget::default();
        while budget.spend() {}
        assert_eq!(budget.left(), 0);
        for _ in 0..4 {
            budget.earn();
            assert!(!budget.spend());
        }
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        for _ in 0..10_000 {
            budget.earn();
        }
        assert_eq!(
            budget.left(),
            TOKENS_MAX,
            "no more than a burst is saved up"
        );
    }

    #[test]
    fn what_was_not_needed_goes_back() {
        let budget = Budget::default();
        assert!(budget.spend());
        budget.give_back();
        budget.give_back();
        assert_eq!(budget.left(), TOKENS_MAX);
    }
}
