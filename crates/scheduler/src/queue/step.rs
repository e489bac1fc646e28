//! Who starts now.

use super::Queue;
use super::action::{Action, Admission, Wait};
use super::entry::Phase;
use super::job::JobId;
use super::order;

impl Queue {
    /// What is to be done now. Asked again at the same moment, there is nothing more to do.
    pub fn step(&mut self, now_ms: u64) -> Vec<Action> {
        let mut head = None;
        for id in self.in_order(now_ms) {
            match self.admit(id, head) {
                Ok(()) => {}
                Err(wait) => {
                    if !matches!(wait, Wait::NoMatchingFlavor | Wait::ExceedsMaxQuota { .. }) {
                        head = head.or(Some(id));
                    }
                    self.waits(id, wait);
                }
            }
        }
        self.start(now_ms);
        std::mem::take(&mut self.outbox)
    }

    /// Jobs that wait, who goes first first.
    pub fn in_order(&self, now_ms: u64) -> Vec<JobId> {
        let pending = self.pending.iter().filter_map(|id| self.entries.get(id));
        let mut keyed: Vec<_> = pending
            .map(|entry| {
                let key = self.usage.key(entry, &self.config, now_ms);
                (key, entry.job.id)
            })
            .collect();
        keyed.sort_by(|left, right| order::total(&left.0, &right.0));
        keyed.into_iter().map(|(_, id)| id).collect()
    }

    fn admit(&mut self, id: JobId, head: Option<JobId>) -> Result<(), Wait> {
        let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id)) else {
            return Ok(());
        };
        if let Some(wait) = self.usage.obstacle(&entry.job, &self.config) {
            return Err(wait);
        }
        let taken = self.room.place(asks, entry.job.gang);
        let taken = taken.map_err(|fit| {
            if fit == 0 && !self.room.possible(asks) {
                Wait::NoMatchingFlavor
            } else {
                Wait::TopologyPlacementFailed { fit }
            }
        })?;
        let reason = match head {
            Some(head) => Admission::Backfilled { head },
            None if self.usage.borrows(&entry.job, &self.config) => Admission::Borrowing,
            None => Admission::QuotaReserved,
        };
        self.reserve(id, taken, reason);
        Ok(())
    }

    fn waits(&mut self, id: JobId, why: Wait) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Phase::Pending { wait } = &mut entry.phase
        {
            *wait = why;
        }
    }

    /// Reserved → running, where nobody has to stop first.
    fn start(&mut self, now_ms: u64) {
        for entry in self.entries.values_mut() {
            let Phase::Reserved {
                places,
                waits_for,
                reason,
            } = &entry.phase
            else {
                continue;
            };
            if !waits_for.is_empty() {
                continue;
            }
            entry.attempts += 1;
            self.outbox.push(Action::Start {
                job: entry.job.id,
                attempt: entry.attempts,
                places: places.clone(),
                reason: reason.clone(),
            });
            entry.phase = Phase::Running {
                places: places.clone(),
                since_ms: now_ms,
                checkpoint_ms: now_ms,
            };
        }
    }
}
