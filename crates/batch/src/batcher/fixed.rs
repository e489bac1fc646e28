//! The choice by Triton's settings: preferred sizes and a largest delay.

use std::time::Instant;

use super::{Batcher, Choice};
use crate::Ticket;

/// One batch in so many is filled whatever was measured.
const RETRY_EVERY: u64 = 64;

impl Batcher {
    pub(super) fn by_size(&self, now: Instant, group: (usize, u64)) -> Choice {
        let settings = &self.settings;
        let mut waiting = self.of_class(group);
        let Some((first, head)) = waiting.next() else {
            return Choice::Nothing;
        };
        let mut rows = head.request.rows;
        let largest = settings.preferred.last().copied();
        let cap = largest.unwrap_or(usize::MAX).min(settings.rows_max);
        let cap = self.worthwhile(first, cap);
        if rows == 0 || rows >= cap {
            return Choice::Run(vec![first]);
        }
        let mut tickets = vec![first];
        let mut oldest = head.arrived;
        let mut preferred = self.preferred(rows, 1);
        // Another of the class is there and does not fit: waiting makes the batch no fuller.
        let mut closed = false;
        for (ticket, entry) in waiting {
            let more = entry.request.rows;
            if more == 0 || rows + more > cap {
                closed = true;
                continue;
            }
            rows += more;
            tickets.push(ticket);
            oldest = oldest.min(entry.arrived);
            preferred = self.preferred(rows, tickets.len()).or(preferred);
            if rows == cap {
                break;
            }
        }
        let until = oldest + settings.delay;
        if until <= now || rows == cap {
            return Choice::Run(tickets);
        }
        match preferred {
            Some(count) => Choice::Run(prefix(tickets, count)),
            None if closed => Choice::Run(tickets),
            None => Choice::Hold(until),
        }
    }

    /// Who allows no delay wants the most out of the lanes, and larger batches only where they help. What was measured is
    /// tried again now and then, as it may have been the machine's bad moment.
    fn worthwhile(&self, first: Ticket, cap: usize) -> usize {
        let again = first.0.is_multiple_of(RETRY_EVERY);
        if again || !self.settings.delay.is_zero() {
            return cap;
        }
        self.latency.efficient(cap)
    }

    /// How many requests make a batch of a preferred size, if so many rows are one.
    fn preferred(&self, rows: usize, count: usize) -> Option<usize> {
        self.settings.preferred.contains(&rows).then_some(count)
    }
}

fn prefix(mut tickets: Vec<Ticket>, count: usize) -> Vec<Ticket> {
    tickets.truncate(count);
    tickets
}
