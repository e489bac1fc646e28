use std::cell::RefCell;
use std::sync::Arc;

use routing::Load;

use super::{Now, Pick, Running};
use crate::admission::Line;
use crate::snapshot::{Target, Turns};
use crate::upstream::Upstream;

/// As many lines somebody stands in. Where more upstreams are full, one of these will have a place soon enough.
const LINES_MAX: usize = 64;

/// The running gateway, where an upstream without a free place is passed over and remembered.
#[derive(Debug)]
pub(crate) struct Placing {
    running: Running,
    full: RefCell<Vec<Full>>,
}

#[derive(Debug)]
struct Full {
    line: Arc<Line>,
    sound: bool,
}

/// What becomes of a request where upstreams have only so many places.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is room where it should go.
    Go(Target),
    /// Somewhere there will be: the lines before those who would have been asked.
    Wait(Vec<Arc<Line>>),
    /// Nobody can answer, and it is not for want of places.
    Nobody,
}

/// The running gateway, for somebody who holds a place in one upstream.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) running: Running,
    pub(crate) line: &'a Arc<Line>,
}

impl Placing {
    pub(crate) fn new(running: Running) -> Self {
        Self {
            running,
            full: RefCell::default(),
        }
    }

    /// Those who were meant first are waited for, though somebody further down the chain, of no colour or in doubtful
    /// health has room.
    pub(crate) fn outcome(self, picked: Option<Pick>) -> Outcome {
        let any_sound = self.full.borrow().iter().any(|full| full.sound);
        let is_first = |pick: &Pick| {
            let sound = match &pick.target {
                Target::Local => true,
                Target::Upstream(upstream) => self.running.sound(upstream),
            };
            pick.decision.fallback.is_none()
                && !matches!(pick.decision.colour, Some((_, true)))
                && (sound || !any_sound)
        };
        let none_full = self.full.borrow().is_empty();
        match picked.filter(|pick| none_full || is_first(pick)) {
            Some(pick) => Outcome::Go(pick.target),
            None if none_full => Outcome::Nobody,
            None => {
                let full = self.full.into_inner().into_iter();
                let worth = full.filter(|full| full.sound || !any_sound);
                Outcome::Wait(worth.map(|full| full.line).collect())
            }
        }
    }
}

impl Now for Placing {
    fn turn(&self, turns: &Turns) -> u64 {
        self.running.turn(turns)
    }

    fn ready(&self, upstream: &Upstream) -> bool {
        if !self.running.ready(upstream) {
            return false;
        }
        let line = &upstream.live.line;
        let room = line.has_room();
        if !room {
            let mut full = self.full.borrow_mut();
            let known = full.iter().any(|known| Arc::ptr_eq(&known.line, line));
            if !known && full.len() < LINES_MAX {
                full.push(Full {
                    line: Arc::clone(line),
                    sound: self.running.sound(upstream),
                });
            }
        }
        room
    }

    fn sound(&self, upstream: &Upstream) -> bool {
        self.running.sound(upstream)
    }

    fn load(&self, upstream: &Upstream) -> Load {
        self.running.load(upstream)
    }

    fn now_ms(&self) -> u32 {
        self.running.now_ms()
    }
}

impl Now for Placed<'_> {
    /// Its turn was taken when it got its place.
    fn turn(&self, _: &Turns) -> u64 {
        0
    }

    fn ready(&self, upstream: &Upstream) -> bool {
        Arc::ptr_eq(&upstream.live.line, self.line) && self.running.ready(upstream)
    }

    fn sound(&self, upstream: &Upstream) -> bool {
        self.running.sound(upstream)
    }

    fn load(&self, upstream: &Upstream) -> Load {
        self.running.load(upstream)
    }

    fn now_ms(&self) -> u32 {
        self.running.now_ms()
    }
}
