use std::time::{Duration, Instant};

use protocol::resource::LimitsSpec;

use crate::estimate::{Ask, Estimate, Used};
use crate::window::{Taken, Window};

/// What one key or one route has used of what it may.
#[derive(Debug)]
pub struct Account {
    requests: Option<Window>,
    tokens: Option<Window>,
    in_flight: u64,
    in_flight_max: Option<u64>,
    estimate: Estimate,
}

/// What there is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    Requests,
    Tokens,
    InFlight,
}

/// A limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    pub what: What,
    pub limit: u64,
    /// Zero where the limit is one of places.
    pub window: Duration,
    /// When it is worth another try.
    pub wait: Duration,
}

/// A request that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered(Option<Taken>);

/// Tokens kept for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    taken: Taken,
    ask: Ask,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub limit: u64,
    pub remaining: u64,
    /// When all of it would be back.
    pub reset: Duration,
}

/// What is left, for whoever asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    pub requests: Option<Left>,
    pub tokens: Option<Left>,
}

/// A place is free when somebody's answer ends, which nobody can tell.
const WAIT_FOR_PLACE: Duration = Duration::from_secs(1);

impl Account {
    pub fn new(limits: &LimitsSpec) -> Self {
        let length = Duration::from_millis(limits.window_ms);
        let window = |limit: Option<u64>| limit.map(|limit| Window::new(limit, length));
        Self {
            requests: window(limits.requests),
            tokens: window(limits.tokens),
            in_flight: 0,
            in_flight_max: limits.max_in_flight.map(u64::from),
            estimate: Estimate::default(),
        }
    }

    /// Other limits from now on. What was used stays used, unless the window has another length.
    pub fn change(&mut self, limits: &LimitsSpec) {
        let length = Duration::from_millis(limits.window_ms);
        let change = |window: &mut Option<Window>, limit: Option<u64>| match (&mut *window, limit) {
            (Some(same), Some(limit)) if same.is_of(length) => same.set_limit(limit),
            (_, limit) => *window = limit.map(|limit| Window::new(limit, length)),
        };
        change(&mut self.requests, limits.requests);
        change(&mut self.tokens, limits.tokens);
        self.in_flight_max = limits.max_in_flight.map(u64::from);
    }

    pub fn counts_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// One more request, until it leaves.
    pub fn enter(&mut self, now: Instant) -> Result<Entered, Over> {
        if let Some(max) = self.in_flight_max
            && self.in_flight >= max
        {
            return Err(Over {
                what: What::InFlight,
                limit: max,
                window: Duration::ZERO,
                wait: WAIT_FOR_PLACE,
            });
        }
        let entered = self.count(now)?;
        self.in_flight += 1;
        Ok(entered)
    }

    /// One more request of a call that is inside already.
    pub fn count(&mut self, now: Instant) -> Result<Entered, Over> {
        Ok(Entered(match &mut self.requests {
            None => None,
            Some(window) => Some(take(window, What::Requests, now, 1)?),
        }))
    }

    /// The request has ended.
    pub fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// It was refused elsewhere, so it never was one.
    pub fn withdraw(&mut self, now: Instant, entered: Entered) {
        if let (Some(window), Some(taken)) = (&mut self.requests, entered.0) {
            window.settle(now, taken, 0);
        }
    }

    /// Keeps what a request may use. None where tokens are not limited.
    pub fn reserve(&mut self, now: Instant, ask: &Ask) -> Result<Option<Reserved>, Over> {
        let Some(window) = &mut self.tokens else {
            return Ok(None);
        };
        let expected = self.estimate.total(ask);
        let taken = take(window, What::Tokens, now, expected)?;
        Ok(Some(Reserved { taken, ask: *ask }))
    }

    /// What the request used after all. What its server told is learnt from; what was only counted is not.
    pub fn settle(&mut self, now: Instant, reserved: Reserved, used: Used, told: bool) {
        if told {
            self.estimate.learn(&reserved.ask, used);
        }
        if let Some(window) = &mut self.tokens {
            window.settle(now, reserved.taken, used.total());
        }
    }

    /// What the prompt is likely to have had, where its server did not tell.
    pub fn prompt(&self, reserved: &Reserved) -> u64 {
        self.estimate.prompt(&reserved.ask)
    }

    /// All that was kept, where nothing better is known.
    pub fn whole(&self, reserved: &Reserved) -> Used {
        Used {
            prompt: reserved.taken.amount(),
            output: 0,
        }
    }

    pub fn room(&mut self, now: Instant) -> Room {
        let left = |window: &mut Window| Left {
            limit: window.limit(),
            remaining: window.remaining(now),
            reset: window.reset(now),
        };
        Room {
            requests: self.requests.as_mut().map(left),
            tokens: self.tokens.as_mut().map(left),
        }
    }
}

impl Room {
    /// The tighter of two, for each limit.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        Self {
            requests: tighter(self.requests, other.requests),
            tokens: tighter(self.tokens, other.tokens),
        }
    }
}

fn tighter(one: Option<Left>, other: Option<Left>) -> Option<Left> {
    match (one, other) {
        (Some(one), Some(other)) if other.remaining < one.remaining => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

fn take(window: &mut Window, what: What, now: Instant, amount: u64) -> Result<Taken, Over> {
    window.take(now, amount).map_err(|too_much| Over {
        what,
        limit: window.limit(),
        window: window.length(),
        wait: too_much.wait,
    })
}

#[cfg(test)]
mod tests;
