use std::collections::VecDeque;

use protocol::resource::Priority;

/// The most that one request may cost, which a class saves up for over as many rounds as it takes.
pub const COST_MAX: u32 = 8;

/// What each class may spend in a round, in the order of [`Priority::ALL`]. While all four wait, of 15 parts of the work
/// realtime gets 8, interactive 4, standard 2 and bulk 1. As small as can be: who comes to an empty line waits for what is
/// left of a round, and the next place is found in [`COST_MAX`] rounds at most.
const QUANTA: [u32; CLASSES] = [8, 4, 2, 1];

const CLASSES: usize = Priority::ALL.len();

/// Below so many left-over slots a line is not tidied.
const DEAD_MIN: usize = 16;

/// Who waits, in four classes: deficit round robin between them, first come first served within.
///
/// It has no bound of its own: each who joins says at how many it gives up, so that routes with bounds of their own can
/// share one.
#[derive(Debug)]
pub struct Queue<T> {
    lines: [Line<T>; CLASSES],
    /// Whose turn it is.
    turn: usize,
    number: u64,
}

/// Somebody who wants to wait.
#[derive(Debug)]
pub struct Entry<T> {
    pub class: Priority,
    /// From 1 to [`COST_MAX`].
    pub cost: u32,
    pub item: T,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    class: Priority,
    number: u64,
}

/// As many wait as may, and none of a lower class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct Line<T> {
    /// In the order of their numbers. One who left stays as an empty slot until the front passes it.
    slots: VecDeque<Slot<T>>,
    waiting: usize,
    /// Of those who wait, together.
    cost: u64,
    deficit: u32,
}

#[derive(Debug)]
struct Slot<T> {
    number: u64,
    cost: u32,
    item: Option<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let mut queue = Self {
            lines: std::array::from_fn(|_| Line::default()),
            turn: 0,
            number: 0,
        };
        queue.begin();
        queue
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            waiting: 0,
            cost: 0,
            deficit: 0,
        }
    }
}

impl<T> Queue<T> {
    pub fn len(&self) -> usize {
        self.lines.iter().map(|line| line.waiting).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.waiting == 0)
    }

    pub fn waiting(&self, class: Priority) -> usize {
        self.lines[index(class)].waiting
    }

    /// Joins the line of its class. If `max` wait already, the youngest of the lowest class gives way to a higher one.
    pub fn push(&mut self, entry: Entry<T>, max: usize) -> Result<(Ticket, Option<T>), Full> {
        let mut displaced = None;
        if self.len() >= max {
            displaced = Some(self.displace(entry.class).ok_or(Full)?);
        }
        let number = self.number;
        self.number += 1;
        self.lines[index(entry.class)].push(Slot {
            number,
            cost: entry.cost.clamp(1, COST_MAX),
            item: Some(entry.item),
        });
        let ticket = Ticket {
            class: entry.class,
            number,
        };
        Ok((ticket, displaced))
    }

    /// The next one whose turn it is and whom `takes` accepts. Whom it does not accept is out of the line, at no cost to
    /// its class.
    pub fn pop(&mut self, mut takes: impl FnMut(&T) -> bool) -> Option<T> {
        while !self.is_empty() {
            let line = &mut self.lines[self.turn];
            let Some(cost) = line.next_cost() else {
                self.pass();
                continue;
            };
            if line.deficit < cost {
                self.pass();
                continue;
            }
            if let Some(item) = line.pop()
                && takes(&item)
            {
                line.deficit -= cost;
                if self.is_empty() {
                    self.begin();
                }
                return Some(item);
            }
        }
        self.begin();
        None
    }

    /// Leaves the line; false if it was out of it already.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let removed = self.lines[index(ticket.class)].remove(ticket.number);
        if removed && self.is_empty() {
            self.begin();
        }
        removed
    }

    /// How many go before one who joins now: those of its class, and of the others as many as their shares allow until
    /// its turn. At most so many while all cost 1; about so many else.
    pub fn ahead(&self, class: Priority, cost: u32) -> usize {
        let own = index(class);
        let line = &self.lines[own];
        let needed = line.cost + u64::from(cost.clamp(1, COST_MAX));
        let rounds = needed.div_ceil(u64::from(QUANTA[own]));
        let others = self.lines.iter().zip(QUANTA).enumerate();
        let before = others
            .filter(|(other, _)| *other != own)
            .map(|(_, (line, quantum))| line.served_in(rounds * u64::from(quantum)));
        line.waiting + before.sum::<usize>()
    }

    /// Nobody waits: the next round begins with the highest class.
    fn begin(&mut self) {
        for line in &mut self.lines {
            line.deficit = 0;
        }
        self.turn = 0;
        self.lines[0].deficit = QUANTA[0];
    }

    fn pass(&mut self) {
        // What is left over is for those who wait: nobody saves for later.
        let line = &mut self.lines[self.turn];
        if line.waiting == 0 {
            line.deficit = 0;
        }
        self.turn = (self.turn + 1) % CLASSES;
        self.lines[self.turn].deficit += QUANTA[self.turn];
    }

    fn displace(&mut self, by: Priority) -> Option<T> {
        let lower = index(by) + 1;
        let mut lines = self.lines[lower..].iter_mut().rev();
        let line = lines.find(|line| line.waiting > 0)?;
        let youngest = line.slots.iter().rev().find(|slot| slot.item.is_some())?;
        let number = youngest.number;
        line.take(number)
    }
}

impl<T> Line<T> {
    fn push(&mut self, slot: Slot<T>) {
        self.cost += u64::from(slot.cost);
        self.waiting += 1;
        self.slots.push_back(slot);
    }

    fn next_cost(&mut self) -> Option<u32> {
        while let Some(slot) = self.slots.front() {
            if slot.item.is_some() {
                return Some(slot.cost);
            }
            self.slots.pop_front();
        }
        None
    }

    fn pop(&mut self) -> Option<T> {
        let number = self.slots.front()?.number;
        let item = self.take(number);
        self.slots.pop_front();
        item
    }

    fn take(&mut self, number: u64) -> Option<T> {
        let at = self.slots.binary_search_by_key(&number, |slot| slot.number);
        let slot = self.slots.get_mut(at.ok()?)?;
        let item = slot.item.take()?;
        self.cost -= u64::from(slot.cost);
        self.waiting -= 1;
        Some(item)
    }

    fn remove(&mut self, number: u64) -> bool {
        let removed = self.take(number).is_some();
        let dead = self.slots.len() - self.waiting;
        if dead > DEAD_MIN && dead > self.waiting {
            self.slots.retain(|slot| slot.item.is_some());
        }
        removed
    }

    /// How many of this line go for `cost`, rounded up.
    fn served_in(&self, cost: u64) -> usize {
        if cost >= self.cost {
            return self.waiting;
        }
        let served = (cost * self.waiting as u64).div_ceil(self.cost);
        usize::try_from(served).unwrap_or(self.waiting)
    }
}

fn index(class: Priority) -> usize {
    CLASSES - 1 - class as usize
}

#[cfg(test)]
mod tests;
