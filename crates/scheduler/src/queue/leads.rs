//! Those that have waited past their bounds: they go first, in the order of their bounds, while such jobs have no more than
//! their part of the cluster. The rest of it goes on as if nobody were past a bound, so that a queue that is longer than the
//! bounds does not become first come, first served.

use super::Queue;
use super::config::Amounts;
use super::config::Order;
use super::job::JobId;
use super::round::Round;

impl Queue {
    /// Those that go first now. If none of them runs, there is always one.
    pub(super) fn leads(&self, now_ms: u64) -> Vec<JobId> {
        let mut leads = Vec::new();
        if self.config.order != Order::Promises {
            return leads;
        }
        let mut used = self.usage.led();
        for id in self.waiting.past(now_ms) {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let then = used.plus(Amounts::of(&entry.job));
            // Nobody passes one that is too large for what is left of the part.
            let within = self.usage.within(then, self.config.past_bounds_percent);
            if used != Amounts::default() && !within {
                break;
            }
            used = then;
            leads.push(id);
        }
        leads
    }

    /// Gives each of them its turn.
    pub(super) fn lead(&mut self, round: &mut Round) {
        let past = self.waiting.past(round.now_ms);
        let leads: Vec<_> = past.take(round.leads.len()).collect();
        for id in leads {
            if round.closed {
                break;
            }
            if let Err(wait) = self.admit(id, round) {
                self.waiting.tried(id, round.number);
                self.waits(id, wait);
            }
        }
        round.afresh = false;
    }
}
