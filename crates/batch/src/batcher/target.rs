//! The choice by a latency target: the earliest due first, in batches as large as the target allows.
//!
//! A batch starts at once: waiting for others makes it larger and the lane idle, and under load batches grow by themselves
//! while one runs. When more waits than can be answered in time, the requests that would shrink the batch for all others
//! are put behind: a few are late instead of all. How near this comes to the best that is possible, `xtask bench batcher`
//! says beside a schedule that knows what will arrive.

use std::time::{Duration, Instant};

use super::{Batcher, Choice};
use crate::Ticket;

/// How far ahead the consequences of a choice are counted, in requests; bounds the work of one choice.
const AHEAD_MAX: usize = 1024;

/// Share of the target that a batch may take: its requests have waited a little already.
const BATCH_SHARE: f64 = 0.8;

/// Share of the target that a batch may take for those in it who can wait longer than that: whoever comes meanwhile waits
/// for its end, and then for an own batch. Of 0.3, 0.4, 0.5 and 1 the best in the benchmark, by little beside 0.5.
const PATIENT_SHARE: f64 = 0.4;

/// Share of the rows that may be late on purpose. Below the one in a hundred that a 99th percentile allows, for some are
/// late by bad luck.
const LATE_SHARE: f64 = 0.0095;

/// Rows that can be given up at once, after a quiet time.
const LATE_MAX: f64 = 256.0;

/// Rows that may be given up now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit(f64);

impl Credit {
    /// A little, so that the first burst is not held to what has been earned.
    pub(super) fn new() -> Self {
        Self(8.0)
    }

    pub(super) fn arrived(&mut self, rows: usize) {
        self.0 = (self.0 + rows as f64 * LATE_SHARE).min(LATE_MAX);
    }

    /// Whether so many rows may be late; then they are.
    fn spend(&mut self, rows: usize) -> bool {
        let enough = self.0 >= rows as f64;
        if enough {
            self.0 -= rows as f64;
        }
        enough
    }
}

/// Rows of the largest batches.
#[derive(Debug, Clone, Copy)]
struct Largest {
    all: usize,
    /// With one in it who is due after this.
    patient: usize,
    patient_after: Instant,
}

impl Largest {
    fn with(&self, due: &Due) -> usize {
        if due.at > self.patient_after {
            self.patient
        } else {
            self.all
        }
    }
}

/// One that waits, in the order in which it is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    ticket: Ticket,
    rows: usize,
    at: Instant,
}

impl Batcher {
    pub(super) fn by_target(
        &mut self,
        now: Instant,
        group: (usize, u64),
        target: Duration,
    ) -> Choice {
        self.give_up(now);
        let Some((first, head)) = self.of_class(group).next() else {
            return Choice::Nothing;
        };
        let (late, alone) = (head.late, head.request.rows == 0);
        if alone || self.settings.rows_max <= 1 {
            return Choice::Run(vec![first], false);
        }
        let size = self.worthwhile(group, self.within(target.mul_f64(BATCH_SHARE)));
        let largest = self.largest(now, target, size.rows);
        if late {
            return Choice::Run(self.late(group, largest.all), false);
        }
        let line: Vec<Due> = self
            .of_class(group)
            .filter(|(_, entry)| !entry.late)
            .take(AHEAD_MAX)
            .map(|(ticket, entry)| Due {
                ticket,
                rows: entry.request.rows,
                at: entry.key,
            })
            .collect();
        let wanted = self.sacrifice(&line, now, largest);
        let rows = line[..wanted].iter().map(|due| due.rows).sum();
        let from = if wanted > 0 && self.credit.spend(rows) {
            wanted
        } else {
            0
        };
        for due in &line[..from] {
            self.put_behind(due.ticket);
        }
        let line = &line[from..];
        let count = self.in_time(line, now, largest);
        let batch = &line[..count];
        let rows: usize = batch.iter().map(|due| due.rows).sum();
        let tickets = batch.iter().map(|due| due.ticket).collect();
        Choice::Run(tickets, size.trial && rows == size.rows)
    }

    /// Puts those behind that would be late if they ran at once and alone, as long as there may be late ones.
    fn give_up(&mut self, now: Instant) {
        let mut late = Vec::new();
        for level in &self.levels {
            for (due, ticket) in &level.line {
                let rows = self
                    .waiting
                    .get(ticket)
                    .map_or(1, |entry| entry.request.rows);
                if now + self.latency.estimate(rows) <= *due {
                    break;
                }
                late.push(*ticket);
            }
        }
        for ticket in late {
            let rows = self
                .waiting
                .get(&ticket)
                .map_or(1, |entry| entry.request.rows);
            if !self.credit.spend(rows.max(1)) {
                break;
            }
            self.put_behind(ticket);
        }
    }

    fn largest(&self, now: Instant, target: Duration, all: usize) -> Largest {
        Largest {
            all,
            patient: self.within(target.mul_f64(PATIENT_SHARE)).min(all),
            patient_after: now + target,
        }
    }

    /// Rows of the largest batch that takes no longer; one at least.
    fn within(&self, time: Duration) -> usize {
        let (mut fit, mut over) = (1, self.settings.rows_max + 1);
        while over - fit > 1 {
            let middle = fit.midpoint(over);
            if self.latency.estimate(middle) <= time {
                fit = middle;
            } else {
                over = middle;
            }
        }
        fit
    }

    /// Late ones in the order in which they were due.
    fn late(&self, group: (usize, u64), largest: usize) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        let mut rows = 0;
        for (ticket, entry) in self.of_class(group) {
            let more = entry.request.rows;
            if more == 0 {
                continue;
            }
            if tickets.is_empty() || rows + more <= largest {
                rows += more;
                tickets.push(ticket);
            }
            if rows >= largest {
                break;
            }
        }
        tickets
    }

    /// How many from the first on make a batch within `largest` rows that is done before any of them is due; one at least.
    /// Those that are late whatever is done do not count: a smaller batch would not help them.
    fn in_time(&self, line: &[Due], now: Instant, largest: Largest) -> usize {
        let (mut count, mut rows) = (0, 0);
        let mut due: Option<Instant> = None;
        for next in line {
            let with = rows + next.rows;
            let possible = now + self.latency.estimate(next.rows) <= next.at;
            let earliest = match due {
                Some(due) if possible => Some(due.min(next.at)),
                None if possible => Some(next.at),
                due => due,
            };
            let end = now + self.latency.estimate(with);
            let fits =
                with <= largest.with(next) && earliest.is_none_or(|earliest| end <= earliest);
            if count > 0 && !fits {
                break;
            }
            (count, rows, due) = (count + 1, with, earliest);
        }
        count
    }

    /// How many at the head to put behind, because keeping them makes more rows late than giving them up.
    fn sacrifice(&self, line: &[Due], now: Instant, bounds: Largest) -> usize {
        let largest = bounds.all;
        let kept = self.in_time(line, now, bounds);
        let total: usize = line.iter().map(|due| due.rows).sum();
        let rows: usize = line[..kept].iter().map(|due| due.rows).sum();
        if rows >= largest || rows == total {
            return 0;
        }
        // The first after which a full batch, or all that is left, is in time.
        let mut given = 0;
        let mut given_rows = 0;
        while given + 1 < line.len() {
            given_rows += line[given].rows;
            given += 1;
            let full = largest.min(total - given_rows);
            if now + self.latency.estimate(full) <= line[given].at {
                break;
            }
        }
        let keeping = self.missed(line, kept, now, largest);
        let rest = &line[given..];
        let giving = given_rows + self.missed(rest, self.in_time(rest, now, bounds), now, largest);
        if giving < keeping { given } else { 0 }
    }

    /// Rows that will be late if a batch of the first `count` starts now and full ones follow, nothing more arriving.
    fn missed(&self, line: &[Due], count: usize, now: Instant, largest: usize) -> usize {
        let lanes = u32::try_from(self.settings.lanes.max(1)).unwrap_or(u32::MAX);
        let mut missed = 0;
        let mut rest = line;
        let mut count = count;
        let mut start = now;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(count.clamp(1, rest.len()));
            let rows = batch.iter().map(|due| due.rows).sum();
            let took = self.latency.estimate(rows);
            let end = start + took;
            let late = batch.iter().filter(|due| due.at < end);
            missed += late.map(|due| due.rows).sum::<usize>();
            // Other lanes take their part of what follows.
            start += took / lanes;
            rest = after;
            count = full(rest, largest);
        }
        missed
    }
}

fn full(line: &[Due], largest: usize) -> usize {
    let mut rows = 0;
    let fits = |due: &&Due| {
        rows += due.rows;
        rows <= largest
    };
    line.iter().take_while(fits).count()
}
