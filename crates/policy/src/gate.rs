use std::time::{Duration, Instant};

use protocol::resource::Priority;

use crate::hold::{Holds, Stay};
use crate::pace::Pace;
use crate::queue::{Entry, Full, Queue, Ticket};

/// So many places, and the line before them.
///
/// While somebody waits no place is free: who leaves hands its place to the next in line, so nobody who comes later can
/// take it in between.
#[derive(Debug)]
pub struct Gate<T> {
    max: usize,
    inside: usize,
    queue: Queue<T>,
    pace: Pace,
    holds: Holds,
}

/// What came of joining the line.
#[derive(Debug)]
pub enum Lined<T> {
    /// There was a place.
    In,
    /// There was a place, and whoever came does not need it.
    Unneeded,
    Waiting {
        ticket: Ticket,
        /// Who had to give way.
        displaced: Option<T>,
    },
}

/// Nobody may wait, or waiting is of no use. With the wait that was foretold, if anything could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Full {
        wait: Option<Duration>,
    },
    TooLate {
        wait: Duration,
        /// How long it should have left then, if it has to be done by some time.
        hold: Duration,
    },
}

/// How long somebody can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a place.
    pub place: Duration,
    /// For the end of what it needs the place for; none if that may take as long as it takes.
    pub end: Option<Duration>,
}

impl<T> Gate<T> {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            inside: 0,
            queue: Queue::default(),
            pace: Pace::default(),
            holds: Holds::default(),
        }
    }

    pub fn inside(&self) -> usize {
        self.inside
    }

    pub fn waiting(&self, class: Priority) -> usize {
        self.queue.waiting(class)
    }

    /// Whether somebody who comes would get a place.
    pub fn free(&self) -> bool {
        self.inside < self.max && self.queue.is_empty()
    }

    /// Whether there was a place. Never before those who wait.
    pub fn enter(&mut self) -> bool {
        let free = self.free();
        if free {
            self.inside += 1;
        }
        free
    }

    /// Joins the line, unless there is a place after all: then it is given whatever is left, for nobody else wants it.
    /// `queue_max` says how many may wait, and `takes` whether whoever is offered a place takes it.
    pub fn line_up(
        &mut self,
        entry: Entry<T>,
        queue_max: usize,
        patience: Patience,
        takes: impl FnOnce(&T) -> bool,
    ) -> Result<Lined<T>, Refused> {
        if self.free() {
            if !takes(&entry.item) {
                return Ok(Lined::Unneeded);
            }
            self.inside += 1;
            return Ok(Lined::In);
        }
        let wait = self.pace.wait(self.queue.ahead(entry.class, entry.cost));
        let hold = patience.end.map_or(Duration::ZERO, |_| self.holds.needed());
        let late = |wait: &Duration| {
            let end = wait.saturating_add(hold);
            *wait > patience.place || patience.end.is_some_and(|until| end > until)
        };
        if let Some(wait) = wait.filter(late) {
            return Err(Refused::TooLate { wait, hold });
        }
        let (ticket, displaced) = self
            .queue
            .push(entry, queue_max)
            .map_err(|Full| Refused::Full { wait })?;
        Ok(Lined::Waiting { ticket, displaced })
    }

    /// Somebody inside leaves. Its place is the next one's in line who still takes it: returned to be told. `takes` hears
    /// how much time it should have left; nothing if nobody is behind it, for then the place would stand free.
    pub fn leave(
        &mut self,
        (now, stay): (Instant, Stay),
        takes: impl FnMut(&T, Duration) -> bool,
    ) -> Option<T> {
        self.holds.note(stay);
        let next = self.next(takes);
        if next.is_none() {
            self.inside = self.inside.saturating_sub(1);
        }
        self.pace.left(now, !self.queue.is_empty());
        next
    }

    /// Leaves the line; false if it was offered a place meanwhile, or displaced.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.queue.remove(ticket)
    }

    /// More or fewer places from now on. Who gets one of the new ones is returned to be told; nobody is sent away.
    pub fn set_max(&mut self, max: usize, mut takes: impl FnMut(&T) -> bool) -> Vec<T> {
        self.max = max;
        let mut entered = Vec::new();
        while self.inside < self.max {
            let Some(next) = self.queue.pop(&mut takes) else {
                break;
            };
            self.inside += 1;
            entered.push(next);
        }
        entered
    }

    /// After places were taken away, the place of one who leaves is gone.
    fn next(&mut self, mut takes: impl FnMut(&T, Duration) -> bool) -> Option<T> {
        if self.inside > self.max {
            return None;
        }
        let mut behind = self.queue.len();
        let needed = self.holds.needed();
        self.queue.pop(|item| {
            behind = behind.saturating_sub(1);
            takes(item, if behind > 0 { needed } else { Duration::ZERO })
        })
    }
}

#[cfg(test)]
mod tests;
