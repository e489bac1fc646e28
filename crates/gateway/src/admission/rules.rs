use std::sync::Arc;

use base::Clock;
use http::HeaderMap;
use protocol::resource::{KeySpec, LimitsSpec, Priority, QueueSpec, RouteSpec};

use super::account::{Account, Of};
use super::line::Line;
use crate::headers::REQUEST_PRIORITY;

/// What a key's resource says of admission.
#[derive(Debug, Default)]
pub(crate) struct KeyRules {
    /// None if nothing is limited.
    pub(crate) account: Option<Arc<Account>>,
    limits: LimitsSpec,
    pub(crate) priority: Option<Priority>,
}

impl KeyRules {
    /// What was used under the same name is taken over.
    pub(crate) fn new(name: &str, spec: &KeySpec, before: Option<&Self>) -> Self {
        Self {
            account: account(
                Of::Key,
                name,
                spec.limits.as_ref(),
                before.and_then(|before| before.account.as_ref()),
            ),
            limits: spec.limits.clone().unwrap_or_default(),
            priority: spec.priority,
        }
    }

    pub(crate) fn say_anything(&self) -> bool {
        self.account.is_some() || self.priority.is_some()
    }

    /// Makes the limits those of the account, which other snapshots share.
    pub(crate) fn apply(&self) {
        if let Some(account) = &self.account {
            account.change(&self.limits);
        }
    }
}

/// What a route's resource says of admission.
#[derive(Debug)]
pub(crate) struct RouteRules {
    pub(crate) account: Option<Arc<Account>>,
    limits: LimitsSpec,
    max_in_flight: Option<u32>,
    /// The line before it, if only so many may be in flight.
    pub(crate) line: Option<Arc<Line>>,
    pub(crate) queue: QueueSpec,
    pub(crate) priority: Option<Priority>,
}

impl RouteRules {
    /// None if the route leaves all as it is for any.
    pub(crate) fn new(name: &str, spec: &RouteSpec, before: Option<&Self>) -> Option<Self> {
        if spec.limits.is_none() && spec.priority.is_none() && spec.queue == QueueSpec::default() {
            return None;
        }
        let limits = spec.limits.clone().unwrap_or_default();
        // Who is over a route's number of requests in flight waits, so that is not for its account.
        let counted = LimitsSpec {
            max_in_flight: None,
            ..limits.clone()
        };
        let known = before.and_then(|before| before.line.clone());
        let line = limits
            .max_in_flight
            .map(|_| known.unwrap_or_else(Line::new));
        let counts = counted.requests.is_some() || counted.tokens.is_some();
        let known = before.and_then(|before| before.account.as_ref());
        Some(Self {
            account: account(Of::Route, name, counts.then_some(&counted), known),
            limits: counted,
            max_in_flight: limits.max_in_flight,
            line,
            queue: spec.queue.clone(),
            priority: spec.priority,
        })
    }

    pub(crate) fn apply(&self, clock: &Clock) {
        if let Some(account) = &self.account {
            account.change(&self.limits);
        }
        if let Some(line) = &self.line {
            line.publish(self.max_in_flight, clock);
        }
    }
}

fn account(
    of: Of,
    name: &str,
    limits: Option<&LimitsSpec>,
    before: Option<&Arc<Account>>,
) -> Option<Arc<Account>> {
    let limits = limits?;
    Some(before.map_or_else(|| Account::new(of, name, limits), Arc::clone))
}

/// The class that a request claims; what is none is taken as not said.
pub(crate) fn class_asked(headers: &HeaderMap) -> Option<Priority> {
    Priority::parse(headers.get(&REQUEST_PRIORITY)?.to_str().ok()?)
}
