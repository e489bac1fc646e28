use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A window is counted in so many parts. More would give back sooner what has left the window, by less and less.
const PARTS: u32 = 64;

/// So much in so long, wherever the window is laid.
///
/// What was taken is counted by parts of the window, one part more than a window has: a window touches that many. So no
/// window ever holds more than the limit, and what was taken comes back at most one part after it has left the window.
#[derive(Debug)]
pub struct Window {
    limit: u64,
    part: Duration,
    /// The first use: parts are counted from there.
    origin: Option<Instant>,
    /// Taken in each part, the oldest first. The last is that of `newest`; none of a part outside the window.
    parts: VecDeque<u64>,
    newest: u64,
    sum: u64,
}

/// What was let through, until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Of the window that it was taken from: a limit may have been given another one since.
    origin: Option<Instant>,
    part: u64,
    amount: u64,
}

impl Taken {
    pub fn amount(&self) -> u64 {
        self.amount
    }
}

/// More than is left: as much is free again after this time, if nobody else takes it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch {
    pub wait: Duration,
}

impl Window {
    pub fn new(limit: u64, length: Duration) -> Self {
        Self {
            limit: limit.max(1),
            part: part(length),
            origin: None,
            parts: VecDeque::from([0]),
            newest: 0,
            sum: 0,
        }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Another limit for the same window: what was taken stays taken.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit.max(1);
    }

    pub fn is_of(&self, length: Duration) -> bool {
        part(length) == self.part
    }

    pub fn length(&self) -> Duration {
        self.part * PARTS
    }

    /// Takes `amount`, or nothing. More than the limit counts as the limit: it goes when the window is empty.
    pub fn take(&mut self, now: Instant, amount: u64) -> Result<Taken, TooMuch> {
        self.advance(now);
        let amount = amount.min(self.limit);
        if self.sum.saturating_add(amount) > self.limit {
            let wait = self.until_free(now, amount);
            return Err(TooMuch { wait });
        }
        self.add(amount);
        Ok(Taken {
            origin: self.origin,
            part: self.newest,
            amount,
        })
    }

    /// What was taken turns out to be `actual`. Less is given back where it was taken; more is taken now, beyond the
    /// limit if need be, so that who comes next waits for it.
    pub fn settle(&mut self, now: Instant, taken: Taken, actual: u64) {
        self.advance(now);
        if actual >= taken.amount {
            self.add(actual - taken.amount);
            return;
        }
        if taken.origin != self.origin {
            return;
        }
        let back = taken.amount - actual;
        let age = usize::try_from(self.newest.saturating_sub(taken.part)).unwrap_or(usize::MAX);
        let index = self.parts.len().checked_sub(age.saturating_add(1));
        // Gone from the window means that it is back already.
        if let Some(part) = index.and_then(|index| self.parts.get_mut(index)) {
            *part -= back;
            self.sum -= back;
        }
    }

    /// What could be taken now.
    pub fn remaining(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.limit.saturating_sub(self.sum)
    }

    /// When all would be free if nothing more were taken.
    pub fn reset(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let youngest = self.parts.iter().rev().position(|part| *part > 0);
        youngest.map_or(Duration::ZERO, |age| {
            self.leaves(now, self.newest.saturating_sub(age as u64))
        })
    }

    fn add(&mut self, amount: u64) {
        self.sum = self.sum.saturating_add(amount);
        if let Some(part) = self.parts.back_mut() {
            *part = part.saturating_add(amount);
        }
    }

    fn advance(&mut self, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let passed = now.saturating_duration_since(origin).as_nanos() / self.part.as_nanos();
        let current = u64::try_from(passed).unwrap_or(u64::MAX);
        // A clock read earlier by another thread is no step back.
        let steps = current.saturating_sub(self.newest);
        self.newest = self.newest.max(current);
        for _ in 0..steps.min(u64::from(PARTS) + 1) {
            self.parts.push_back(0);
            if self.parts.len() > PARTS as usize + 1 {
                self.sum -= self.parts.pop_front().unwrap_or(0);
            }
        }
    }

    fn until_free(&self, now: Instant, amount: u64) -> Duration {
        let mut sum = self.sum;
        let oldest = self.newest.saturating_sub(self.parts.len() as u64 - 1);
        for (part, taken) in (oldest..).zip(&self.parts) {
            sum -= taken;
            if *taken > 0 && sum.saturating_add(amount) <= self.limit {
                return self.leaves(now, part);
            }
        }
        self.length()
    }

    /// When a part is no longer in the window.
    fn leaves(&self, now: Instant, part: u64) -> Duration {
        let end = (part + u64::from(PARTS) + 1).saturating_mul(nanos(self.part));
        let origin = self.origin.unwrap_or(now);
        (origin + Duration::from_nanos(end)).saturating_duration_since(now)
    }
}

fn part(length: Duration) -> Duration {
    (length / PARTS).max(Duration::from_nanos(1))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
