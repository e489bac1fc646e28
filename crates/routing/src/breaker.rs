use std::time::{Duration, Instant};

use crate::retry::Blame;

/// Who asks, as a number: equal for requests under the same credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub u64);

impl Caller {
    /// Whoever shows no credential.
    pub const NOBODY: Self = Self(0);
}

/// When failures become too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row; 0 never opens on a row.
    pub consecutive: u32,
    /// Failures among the requests since the first of them, in percent; 0 never opens on a share.
    pub failure_percent: u32,
    /// Requests below which a share says nothing.
    pub requests_min: u32,
    /// How long failures count together.
    pub window: Duration,
    /// How long the upstream is left alone the first time; doubled each time its probe fails.
    pub open: Duration,
    pub open_max: Duration,
}

/// Whether an upstream should get a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// It failed too often, and was left alone since: one request may find out whether it works again.
    Probe,
    /// It failed too often a moment ago. It gets a request only if nobody else can.
    Open,
}

/// Counts one upstream's failures and says when to leave it alone.
///
/// What one caller's requests do to an upstream is that caller's affair: failures of a single caller close the way for
/// that caller only. Failures that no request can cause (no connection) count for all.
#[derive(Debug, Default)]
pub struct Breaker {
    trouble: Option<Trouble>,
    open: Option<Open>,
}

/// Failures since the last time all was well.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    failures: u32,
    answers: u32,
    in_a_row: u32,
    of: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    One(Caller),
    All,
}

impl Whose {
    fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::All }
    }

    fn includes(self, caller: Caller) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == caller,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Open {
    whom: Whose,
    until: Instant,
    /// How long it was left alone this time.
    length: Duration,
    /// Whether a request is finding out whether it works again.
    probing: bool,
}

impl Breaker {
    /// Nothing is counted and nothing is open, so an answer changes nothing.
    pub fn at_rest(&self) -> bool {
        self.trouble.is_none() && self.open.is_none()
    }

    pub fn standing(&self, caller: Caller, now: Instant) -> Standing {
        match &self.open {
            Some(open) if open.whom.includes(caller) => {
                if now < open.until {
                    Standing::Open
                } else {
                    Standing::Probe
                }
            }
            _ => Standing::Good,
        }
    }

    /// Whether it is left alone by everybody.
    pub fn closed_to_all(&self, now: Instant) -> bool {
        self.open
            .is_some_and(|open| open.whom == Whose::All && now < open.until)
    }

    /// Takes the probe, so that others do not probe as well while it runs: at most `patience`.
    pub fn probe(&mut self, now: Instant, patience: Duration) {
        if let Some(open) = &mut self.open
            && now >= open.until
        {
            open.until = now + patience;
            open.probing = true;
        }
    }

    /// It may be probed at once: a health check passed. Only a request's success closes the breaker.
    pub fn may_probe(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(now);
        }
    }

    /// An attempt ended. `caller` is none if no request can have caused it. True if the breaker opened.
    pub fn record(
        &mut self,
        blame: Blame,
        caller: Option<Caller>,
        now: Instant,
        rules: &BreakerRules,
    ) -> bool {
        match blame {
            Blame::Praise => self.praised(caller),
            Blame::Upstream => return self.failed(caller, now, rules),
            // Whoever probed learnt nothing: the next request may.
            Blame::Nobody if self.open.is_some_and(|open| open.probing) => self.may_probe(now),
            Blame::Nobody => {}
        }
        false
    }

    fn praised(&mut self, caller: Option<Caller>) {
        let closes = self
            .open
            .is_some_and(|open| caller.is_none_or(|caller| open.whom.includes(caller)));
        if closes {
            self.open = None;
            self.trouble = None;
        } else if let Some(trouble) = &mut self.trouble {
            trouble.answers = trouble.answers.saturating_add(1);
            trouble.in_a_row = 0;
        }
    }

    fn failed(&mut self, caller: Option<Caller>, now: Instant, rules: &BreakerRules) -> bool {
        let of = caller.map_or(Whose::All, Whose::One);
        if let Some(open) = &mut self.open
            && caller.is_none_or(|caller| open.whom.includes(caller))
        {
            // What was under way when it opened tells nothing new.
            if std::mem::take(&mut open.probing) {
                open.length = (open.length * 2).min(rules.open_max);
                open.until = now + open.length;
            }
            open.whom = open.whom.join(of);
            return false;
        }
        let trouble = match &mut self.trouble {
            Some(trouble) if now.saturating_duration_since(trouble.since) < rules.window => trouble,
            stale => stale.insert(Trouble {
                since: now,
                failures: 0,
                answers: 0,
                in_a_row: 0,
                of,
            }),
        };
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.in_a_row = trouble.in_a_row.saturating_add(1);
        trouble.of = trouble.of.join(of);
        if !too_many(trouble, rules) {
            return false;
        }
        let whom = trouble.of;
        self.trouble = None;
        self.open = Some(Open {
            whom: self.open.map_or(whom, |open| open.whom.join(whom)),
            until: now + rules.open,
            length: rules.open,
            probing: false,
        });
        true
    }
}

fn too_many(trouble: &Trouble, rules: &BreakerRules) -> bool {
    let row = rules.consecutive > 0 && trouble.in_a_row >= rules.consecutive;
    let requests = trouble.failures.saturating_add(trouble.answers);
    let share = rules.failure_percent > 0
        && requests >= rules.requests_min.max(1)
        && u64::from(trouble.failures) * 100
            >= u64::from(requests) * u64::from(rules.failure_percent);
    row || share
}

#[cfg(test)]
mod tests;
