use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use base::Clock;
use parking_lot::Mutex;
use policy::{Entry, Gate, Lined, Patience, Refused, Stay, Ticket};
use protocol::resource::Priority;
use tokio::time::timeout;

use super::turned::Turned;

/// So many places, and who waits for them. It outlives snapshots.
#[derive(Debug)]
pub(crate) struct Line {
    /// Known once it is published.
    clock: OnceLock<Clock>,
    /// Whether there is a limit at all.
    limited: AtomicBool,
    /// Whether somebody who comes would get a place at once: what `gate` says, to be read without its lock.
    room: AtomicBool,
    gate: Mutex<Gate<Caller>>,
}

/// A place of a line, given up when dropped. In a line without a limit it is a word.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// And since when.
    held: Option<(Arc<Line>, Instant)>,
    ended: Option<Ended>,
}

/// How it ended, what the place was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was done.
    Done,
    /// It was given up before it was done.
    Cut,
}

/// Somebody in line, and which of the lines it stands in this one is.
#[derive(Debug, Clone)]
struct Caller {
    waiter: Arc<Waiter>,
    line: usize,
}

/// Somebody who stands in one line or in several, for one place.
#[derive(Debug, Default)]
struct Waiter(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// In so many lines.
    lines: usize,
    outcome: Outcome,
    waker: Option<Waker>,
    /// When it has to be done with what it needs the place for.
    end: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    #[default]
    None,
    /// A place in that line is its own: to be taken, or given back.
    Granted(usize),
    /// A higher class took its place in the last of its lines.
    Displaced,
    /// It had its turn with less time left than this, which is what others need.
    NoTime(Duration),
    /// It waits no more.
    Gone,
}

/// How somebody wants to stand in line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) class: Priority,
    pub(crate) cost: u32,
    /// At most so many may wait.
    pub(crate) queue_max: usize,
    /// How long it can wait for a place.
    pub(crate) patience: Duration,
    /// Now, and when it has to be done; none if that may take as long as it takes.
    pub(crate) now: Instant,
    pub(crate) end: Option<Instant>,
}

impl Line {
    /// Without a limit, until it is published with one.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: OnceLock::new(),
            limited: AtomicBool::new(false),
            room: AtomicBool::new(true),
            gate: Mutex::new(Gate::new(usize::MAX)),
        })
    }

    /// Another limit from now on. Who is inside stays.
    pub(crate) fn publish(&self, max: Option<u32>, clock: &Clock) {
        self.clock.get_or_init(|| clock.clone());
        let mut gate = self.gate.lock();
        self.limited.store(max.is_some(), Ordering::Relaxed);
        let places = max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let entered = gate.set_max(places, Caller::takes);
        self.note_room(&gate);
        drop(gate);
        entered.iter().for_each(Caller::wake);
    }

    /// Whether a place is free for whoever comes now.
    pub(crate) fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed)
    }

    /// A place, if there is one for somebody who just comes.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        if !self.limited.load(Ordering::Relaxed) {
            return Some(Place::default());
        }
        let mut gate = self.gate.lock();
        let entered = gate.enter();
        self.note_room(&gate);
        drop(gate);
        entered.then(|| self.place())
    }

    fn place(self: &Arc<Self>) -> Place {
        let clock = self.clock.get();
        Place {
            held: clock.map(|clock| (Arc::clone(self), clock.now())),
            ended: None,
        }
    }

    fn leave(&self, since: Instant, ended: Option<Ended>) {
        let Some(clock) = self.clock.get() else {
            return;
        };
        let now = clock.now();
        let held = now.saturating_duration_since(since);
        let stay = match ended {
            Some(Ended::Done) => Stay::Done(held),
            Some(Ended::Cut) => Stay::Cut(held),
            None => Stay::Unknown,
        };
        let mut turned = Vec::new();
        let mut gate = self.gate.lock();
        let next = gate.leave((now, stay), |caller, needed| {
            let fits = caller.fits(now, needed);
            if !fits {
                turned.push(caller.clone());
            }
            fits && caller.takes()
        });
        self.note_room(&gate);
        drop(gate);
        next.iter().chain(&turned).for_each(Caller::wake);
    }

    fn cancel(&self, ticket: Ticket) {
        let mut gate = self.gate.lock();
        gate.cancel(ticket);
        self.note_room(&gate);
    }

    fn line_up(&self, entry: Entry<Caller>, standing: &Standing) -> Result<Lined<Caller>, Refused> {
        let max = standing.queue_max;
        let end = standing.end;
        let patience = Patience {
            place: standing.patience,
            end: end.map(|end| end.saturating_duration_since(standing.now)),
        };
        let mut gate = self.gate.lock();
        let lined = gate.line_up(entry, max, patience, Caller::takes);
        self.note_room(&gate);
        lined
    }

    fn note_room(&self, gate: &Gate<Caller>) {
        self.room.store(gate.free(), Ordering::Relaxed);
    }

    #[cfg(test)]
    fn inside(&self) -> usize {
        self.gate.lock().inside()
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        let gate = self.gate.lock();
        Priority::ALL.iter().map(|class| gate.waiting(*class)).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((line, since)) = self.held.take() {
            line.leave(since, self.ended);
        }
    }
}

impl Place {
    /// What is said last counts; without a word the stay tells nothing.
    pub(crate) fn ended(&mut self, ended: Option<Ended>) {
        self.ended = ended;
    }
}

impl Caller {
    /// Whether it still wants a place; then this one is its own.
    fn takes(&self) -> bool {
        let mut waiting = self.waiter.0.lock();
        let wants = waiting.outcome == Outcome::None;
        if wants {
            waiting.outcome = Outcome::Granted(self.line);
        }
        wants
    }

    /// Whether it would be done in time if others' times are anything to go by; if not it is out of this line.
    fn fits(&self, now: Instant, needed: Duration) -> bool {
        let end = self.waiter.0.lock().end;
        let fits = end.is_none_or(|end| now + needed <= end);
        if !fits {
            self.out(Outcome::NoTime(needed));
        }
        fits
    }

    /// It lost its place in this line.
    fn displace(&self) {
        self.out(Outcome::Displaced);
        self.wake();
    }

    /// It is out of this line; if that was its last, that is how it ends.
    fn out(&self, why: Outcome) {
        let mut waiting = self.waiter.0.lock();
        waiting.lines = waiting.lines.saturating_sub(1);
        if waiting.lines == 0 && waiting.outcome == Outcome::None {
            waiting.outcome = why;
        }
    }

    /// Outside of every lock: who wakes somebody may run its code.
    fn wake(&self) {
        let waker = self.waiter.0.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The lines that somebody stands in. Dropping it leaves them all, and gives back a place that was granted meanwhile.
struct Lines<'a> {
    lines: &'a [Arc<Line>],
    waiter: Arc<Waiter>,
    tickets: Vec<(usize, Ticket)>,
}

/// Waits in all of these lines for the first place in any of them. Cancel-safe: dropped, it leaves no trace.
pub(crate) async fn wait(
    lines: &[Arc<Line>],
    standing: Standing,
) -> Result<(usize, Place), Turned> {
    let mut standing_in = Lines {
        lines,
        waiter: Arc::default(),
        tickets: Vec::new(),
    };
    standing_in.waiter.0.lock().end = standing.end;
    standing_in.line_up(&standing)?;
    let waiter = Arc::clone(&standing_in.waiter);
    let decided = poll_fn(|cx| {
        let waker = cx.waker().clone();
        let mut waiting = waiter.0.lock();
        match waiting.outcome {
            Outcome::None | Outcome::Gone => {
                waiting.waker = Some(waker);
                Poll::Pending
            }
            Outcome::Granted(_) => Poll::Ready(Ok(())),
            Outcome::Displaced => Poll::Ready(Err(Turned::Displaced)),
            Outcome::NoTime(hold) => Poll::Ready(Err(Turned::NoTime { hold })),
        }
    });
    match timeout(standing.patience, decided).await {
        Ok(decided) => decided?,
        Err(_elapsed) => return Err(Turned::Waited),
    }
    standing_in.take().ok_or(Turned::Waited)
}

impl Lines<'_> {
    fn line_up(&mut self, standing: &Standing) -> Result<(), Turned> {
        let mut turned = None;
        for (index, line) in self.lines.iter().enumerate() {
            let caller = Caller {
                waiter: Arc::clone(&self.waiter),
                line: index,
            };
            self.waiter.0.lock().lines += 1;
            let entry = Entry {
                class: standing.class,
                cost: standing.cost,
                item: caller,
            };
            match line.line_up(entry, standing) {
                Ok(Lined::In | Lined::Unneeded) => return Ok(()),
                Ok(Lined::Waiting { ticket, displaced }) => {
                    self.tickets.push((index, ticket));
                    if let Some(displaced) = displaced {
                        displaced.displace();
                    }
                }
                Err(refused) => {
                    self.waiter.0.lock().lines -= 1;
                    turned = Some(kinder(turned, refused));
                }
            }
        }
        match turned {
            Some(turned) if self.tickets.is_empty() => Err(turned),
            _ => Ok(()),
        }
    }

    fn take(&mut self) -> Option<(usize, Place)> {
        let mut waiting = self.waiter.0.lock();
        let outcome = std::mem::replace(&mut waiting.outcome, Outcome::Gone);
        drop(waiting);
        let Outcome::Granted(index) = outcome else {
            return None;
        };
        let line = self.lines.get(index)?;
        Some((index, line.place()))
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        // First, so that nobody grants it a place after this.
        drop(self.take());
        for (index, ticket) in self.tickets.drain(..) {
            if let Some(line) = self.lines.get(index) {
                line.cancel(ticket);
            }
        }
    }
}

/// Of several refusals the one with the shortest wait.
fn kinder(known: Option<Turned>, refused: Refused) -> Turned {
    let next = match refused {
        Refused::Full { wait } => Turned::Full { wait },
        Refused::TooLate { wait, hold } => Turned::TooLate { wait, hold },
    };
    match known {
        Some(known) if known.wait() <= next.wait() => known,
        _ => next,
    }
}

#[cfg(test)]
mod tests;
