//! The choice by a latency target: the earliest due first, in batches as large as the load needs and the target allows.
//!
//! With nothing to lose, a batch starts at once. It is held back to grow only when batches of its size could not carry
//! what arrives, and never beyond the moment at which its first request would be late. When more waits than can be
//! answered in time, the requests that would shrink the batch for all others are put behind: a few are late instead of
//! all.

use std::time::{Duration, Instant};

use super::{Batcher, Choice};
use crate::Ticket;

/// How far ahead the consequences of a choice are counted, in requests; bounds the work of one choice.
const AHEAD_MAX: usize = 1024;

/// Room above the measured rate of arrivals: below it, batches are made larger.
const ROOM: f64 = 1.2;

/// Share of the rows that may be late on purpose. Below the one in a hundred that a 99th percentile allows, for some are
/// late by bad luck.
const LATE_SHARE: f64 = 0.008;

/// Rows that can be given up at once, after a quiet time.
const LATE_MAX: f64 = 256.0;

/// Rows per second that arrive, decaying.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    at: Option<Instant>,
    weight: f64,
    window: f64,
    /// Rows that may be given up now.
    credit: f64,
}

impl Rate {
    /// With a little credit, so that the first burst is not held to what has been earned.
    pub(super) fn new() -> Self {
        Self {
            at: None,
            weight: 0.0,
            window: 0.0,
            credit: 8.0,
        }
    }

    /// Over half the target: what came before that is answered or late.
    pub(super) fn arrived(&mut self, now: Instant, rows: usize, target: Duration) {
        self.window = (target.as_secs_f64() / 2.0).max(1e-4);
        self.weight = self.left(now) + rows as f64;
        self.at = Some(now);
        self.credit = (self.credit + rows as f64 * LATE_SHARE).min(LATE_MAX);
    }

    /// Whether so many rows may be late; then they are.
    fn spend(&mut self, rows: usize) -> bool {
        let enough = self.credit >= rows as f64;
        if enough {
            self.credit -= rows as f64;
        }
        enough
    }

    fn left(&self, now: Instant) -> f64 {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.weight * (-passed.as_secs_f64() / self.window.max(1e-4)).exp()
    }

    fn per_second(&self, now: Instant) -> f64 {
        if self.window == 0.0 {
            return 0.0;
        }
        self.left(now) / self.window
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
            return Choice::Run(vec![first]);
        }
        let largest = self.largest(target);
        if late {
            return Choice::Run(self.late(group, largest));
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
        let from = if wanted > 0 && self.rate.spend(rows) {
            wanted
        } else {
            0
        };
        for due in &line[..from] {
            self.put_behind(due.ticket);
        }
        let line = &line[from..];
        let count = self.in_time(line, now, largest);
        let (chosen, rest) = line.split_at(count);
        let rows: usize = chosen.iter().map(|due| due.rows).sum();
        if rest.is_empty() && rows < largest {
            let due = chosen.iter().map(|due| due.at).min().unwrap_or(now);
            let until = self.worth_waiting(now, (rows, largest), due);
            if let Some(until) = until {
                return Choice::Hold(until);
            }
        }
        Choice::Run(chosen.iter().map(|due| due.ticket).collect())
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
            if !self.rate.spend(rows.max(1)) {
                break;
            }
            self.put_behind(ticket);
        }
    }

    /// Rows of the largest batch that leaves half the target for waiting: what arrives while it runs comes next.
    fn largest(&self, target: Duration) -> usize {
        let fits = |rows: usize| self.latency.estimate(rows) <= target / 2;
        let (mut fit, mut over) = (1, self.settings.rows_max + 1);
        while over - fit > 1 {
            let middle = fit.midpoint(over);
            if fits(middle) {
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
    fn in_time(&self, line: &[Due], now: Instant, largest: usize) -> usize {
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
            let fits = with <= largest && earliest.is_none_or(|earliest| end <= earliest);
            if count > 0 && !fits {
                break;
            }
            (count, rows, due) = (count + 1, with, earliest);
        }
        count
    }

    /// How many at the head to put behind, because keeping them makes more rows late than giving them up.
    fn sacrifice(&self, line: &[Due], now: Instant, largest: usize) -> usize {
        let kept = self.in_time(line, now, largest);
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
        let giving = given_rows + self.missed(rest, self.in_time(rest, now, largest), now, largest);
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

    /// Until when to hold back a batch that could start; none when it should start.
    fn worth_waiting(
        &self,
        now: Instant,
        (rows, largest): (usize, usize),
        due: Instant,
    ) -> Option<Instant> {
        let needed = self.rate.per_second(now) * ROOM;
        let lanes = self.settings.lanes.max(1) as f64;
        let carries = |rows: usize| {
            let seconds = self.latency.mean(rows);
            seconds <= 0.0 || lanes * rows as f64 / seconds >= needed
        };
        if carries(rows) {
            return None;
        }
        let enough = (rows + 1..=largest)
            .find(|rows| carries(*rows))
            .unwrap_or(largest);
        let until = due.checked_sub(self.latency.estimate(enough))?;
        (until > now).then_some(until)
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
