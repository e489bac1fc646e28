//! The choice by Triton's settings: preferred sizes and a largest delay. Without both, by what batches are worth.

use std::time::Instant;

use super::{Batcher, Choice, Size};
use crate::Ticket;

impl Batcher {
    pub(super) fn by_size(&self, now: Instant, group: (usize, u64)) -> Choice {
        let settings = &self.settings;
        let size = self.size(group);
        let cap = size.rows;
        let mut waiting = self.of_class(group);
        let Some((first, head)) = waiting.next() else {
            return Choice::Nothing;
        };
        let mut rows = head.request.rows;
        if rows == 0 || rows >= cap {
            return Choice::Run(vec![first], size.trial && rows == cap);
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
            return Choice::Run(tickets, size.trial && rows == cap);
        }
        match preferred {
            Some(count) => Choice::Run(prefix(tickets, count), false),
            None if closed => Choice::Run(tickets, false),
            None => Choice::Hold(until),
        }
    }

    /// Rows that a batch is not grown beyond. Who names sizes or allows a delay has decided what batches are worth; all
    /// others want the most out of the lanes.
    fn size(&self, group: (usize, u64)) -> Size {
        let settings = &self.settings;
        let largest = settings.preferred.last().copied();
        let most = largest.unwrap_or(usize::MAX).min(settings.rows_max);
        if settings.delay.is_zero() && settings.preferred.is_empty() {
            return self.worthwhile(group, most);
        }
        Size {
            rows: most,
            trial: false,
        }
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
