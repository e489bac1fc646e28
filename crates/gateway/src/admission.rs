//! Whether and when a request may go on: limits of its key and its route, and the line before what is busy.
//!
//! Reading order: [`Permit`] (what one request holds, given back when dropped), [`Account`] (limits), [`Line`] (places),
//! [`Metering`] (what the request used). What is decided is decided in `policy`; here it gets its clock, locks and wakers.

mod account;
mod line;
mod metering;
mod ratelimit;
mod rules;
mod turned;

use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use http::HeaderMap;
use policy::{Ask, Claim, Entered, Reserved, Room, Used};
use protocol::ApiError;
use protocol::openai::usage::Unasked;

pub(crate) use account::Account;
pub(crate) use line::{Ended, Line, Place};
use line::{Standing, wait};
pub(crate) use metering::Metering;
pub(crate) use rules::{KeyRules, RouteRules, class_asked};
pub(crate) use turned::Turned;

use crate::keys::Key;
use crate::metrics::Metrics;

/// What one request holds of what is limited. None of it is kept when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    clock: Clock,
    metrics: Metrics,
    /// Of its key, of its route.
    shares: Vec<Share>,
    /// In its route.
    place: Option<Place>,
    /// In an upstream: the one that answers.
    upstream_place: Option<(Arc<Line>, Place)>,
    /// How long it stood in lines.
    waited: Duration,
    /// What is said of its class.
    pub(crate) claim: Claim,
    /// Whether the upstream was asked for usage by us.
    pub(crate) asked_usage: bool,
}

/// What a request asks for, once its model is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) rules: Option<&'a RouteRules>,
    /// None where there are no tokens.
    pub(crate) ask: Option<Ask>,
    /// How long it can wait for a place.
    pub(crate) patience: Duration,
    /// How long for the whole answer, if there is an end to that.
    pub(crate) total: Option<Duration>,
}

#[derive(Debug)]
struct Share {
    account: Arc<Account>,
    /// None if it was refused.
    entered: Option<Entered>,
    reserved: Option<Reserved>,
}

/// How a request ended, as far as its tokens are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nobody worked for it, or in vain.
    Nothing,
    /// It was sent, and its caller left before there was an answer.
    Abandoned,
    /// It was answered, wholly or in part.
    Answered,
}

impl Permit {
    pub(crate) fn new(clock: Clock, metrics: Metrics) -> Self {
        Self {
            clock,
            metrics,
            shares: Vec::new(),
            place: None,
            upstream_place: None,
            waited: Duration::ZERO,
            claim: Claim::default(),
            asked_usage: false,
        }
    }

    /// Counts the request for its key.
    pub(crate) fn enter_key(&mut self, key: Option<&Key>) -> Result<(), ApiError> {
        let Some(key) = key else { return Ok(()) };
        // With keys there is always somebody to keep below.
        self.claim.key = Some(key.rules.priority.unwrap_or_default());
        match &key.rules.account {
            Some(account) => self.enter(account),
            None => Ok(()),
        }
    }

    /// Counts the request for its route and keeps the tokens that it may use. Returns the line to stand in, if its route
    /// has no place at once.
    pub(crate) fn admit(&mut self, asking: &Asking<'_>) -> Result<Option<Arc<Line>>, ApiError> {
        if let Some(rules) = asking.rules {
            self.claim.route = rules.priority;
            if let Some(account) = &rules.account {
                self.enter(account)?;
            }
        }
        if let Some(ask) = &asking.ask {
            self.reserve(ask)?;
        }
        let Some(line) = asking.rules.and_then(|rules| rules.line.as_ref()) else {
            return Ok(None);
        };
        self.place = line.enter();
        Ok(self.place.is_none().then(|| Arc::clone(line)))
    }

    /// Waits for a place in the route.
    pub(crate) async fn stand_in(
        &mut self,
        line: &Arc<Line>,
        asking: &Asking<'_>,
    ) -> Result<(), ApiError> {
        match self.stand_in_any(std::slice::from_ref(line), asking).await {
            Ok((_, place)) => {
                self.place = Some(place);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for a place in any of these lines.
    pub(crate) async fn stand_in_any(
        &mut self,
        lines: &[Arc<Line>],
        asking: &Asking<'_>,
    ) -> Result<(usize, Place), ApiError> {
        let queue = asking
            .rules
            .map(|rules| rules.queue.clone())
            .unwrap_or_default();
        let limit = queue.wait_ms.map(Duration::from_millis);
        let class = policy::class(self.claim);
        let since = self.clock.now();
        let standing = Standing {
            now: since,
            end: asking.total.map(|total| since + total),
            class,
            cost: cost(asking.ask.as_ref()),
            queue_max: queue.max,
            patience: limit.map_or(asking.patience, |limit| limit.min(asking.patience)),
        };
        let metrics = self.metrics.clone();
        let in_line = metrics.admission().in_line(class);
        let waited = wait(lines, standing).await;
        drop(in_line);
        let took = self.clock.now().saturating_duration_since(since);
        self.waited += took;
        metrics.admission().waited(class, took.as_secs_f64());
        waited.map_err(|turned| {
            self.withdraw();
            metrics.admission().shed(class, turned);
            let by_limit = limit.is_some_and(|limit| limit < asking.patience);
            turned.into_error(class, by_limit)
        })
    }

    /// Counts further requests of the same call.
    pub(crate) fn counter(&self) -> Counter {
        let shares = self.shares.iter();
        Counter {
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            accounts: shares.map(|share| Arc::clone(&share.account)).collect(),
        }
    }

    /// It has this place in an upstream, and no other.
    pub(crate) fn place_in(&mut self, line: &Arc<Line>, place: Place) {
        self.upstream_place = Some((Arc::clone(line), place));
    }

    /// The place, for the attempt that it is for.
    pub(crate) fn take_place(&mut self, line: &Arc<Line>) -> Option<Place> {
        let held = self
            .upstream_place
            .take_if(|(held, _)| Arc::ptr_eq(held, line))?;
        Some(held.1)
    }

    /// The line of the upstream that it has a place in.
    pub(crate) fn placed(&self) -> Option<&Arc<Line>> {
        self.upstream_place.as_ref().map(|(line, _)| line)
    }

    /// For people: how long it stood in line, if it did.
    pub(crate) fn waited(&self) -> Option<String> {
        let class = policy::class(self.claim).name();
        let ms = self.waited.as_millis();
        (!self.waited.is_zero()).then(|| format!("; stood in line for {ms} ms as `{class}`"))
    }

    /// What becomes of the event that only tells usage.
    pub(crate) fn unasked(&self) -> Unasked {
        if self.asked_usage {
            Unasked::Drop
        } else {
            Unasked::Keep
        }
    }

    /// Counts the request, or says why not. A request that one account refuses costs none.
    fn enter(&mut self, account: &Arc<Account>) -> Result<(), ApiError> {
        let now = self.clock.now();
        let entered = account.state.lock().enter(now);
        self.shares.push(Share {
            account: Arc::clone(account),
            entered: entered.ok(),
            reserved: None,
        });
        entered.map(drop).map_err(|over| {
            self.withdraw();
            account.over(&over, &self.metrics)
        })
    }

    /// Keeps the tokens that a request may use.
    fn reserve(&mut self, ask: &Ask) -> Result<(), ApiError> {
        let now = self.clock.now();
        let mut refused = None;
        for share in &mut self.shares {
            match share.account.state.lock().reserve(now, ask) {
                Ok(reserved) => share.reserved = reserved,
                Err(over) => {
                    refused = Some(share.account.over(&over, &self.metrics));
                    break;
                }
            }
        }
        match refused {
            None => Ok(()),
            Some(error) => {
                self.withdraw();
                Err(error)
            }
        }
    }

    /// Whether it matters how many tokens the request uses.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.shares.iter().any(|share| share.reserved.is_some())
    }

    /// It goes no further, and was never one.
    fn withdraw(&mut self) {
        let now = self.clock.now();
        for share in &mut self.shares {
            let mut account = share.account.state.lock();
            if let Some(reserved) = share.reserved.take() {
                account.settle(now, reserved, Used::default(), false);
            }
            if let Some(entered) = share.entered.take() {
                account.withdraw(now, entered);
                account.leave();
            }
        }
        self.place = None;
        self.upstream_place = None;
    }

    /// The request has ended. What its upstream told is charged; else what the client got; else, if neither is known,
    /// what was reserved.
    pub(crate) fn settle(&mut self, ending: Ending, metering: &Metering) {
        let now = self.clock.now();
        for share in &mut self.shares {
            let Some(reserved) = share.reserved.take() else {
                continue;
            };
            let mut account = share.account.state.lock();
            let prompt = account.prompt(&reserved);
            let (used, told) = match (metering.told(), ending) {
                (Some(told), _) => (told, true),
                (None, Ending::Nothing) => (Used::default(), false),
                (None, Ending::Abandoned) => (Used { prompt, output: 0 }, false),
                (None, Ending::Answered) => match metering.delivered() {
                    Some(output) => (Used { prompt, output }, false),
                    None => (account.whole(&reserved), false),
                },
            };
            account.settle(now, reserved, used, told);
            drop(account);
            self.metrics.admission().used(&share.account, used);
        }
    }

    /// What its place in the route was for has ended.
    pub(crate) fn place_ended(&mut self, ended: Option<Ended>) {
        if let Some(place) = &mut self.place {
            place.ended(ended);
        }
    }

    /// What is left, for the caller to see.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let now = self.clock.now();
        let rooms = self
            .shares
            .iter()
            .map(|share| share.account.state.lock().room(now));
        let room = rooms.fold(Room::default(), Room::tighter);
        ratelimit::tell(headers, &room);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Ending::Nothing, &Metering::Off);
        for share in &mut self.shares {
            if share.entered.take().is_some() {
                share.account.state.lock().leave();
            }
        }
    }
}

/// What a request costs its class in line: a part for so many tokens.
fn cost(ask: Option<&Ask>) -> u32 {
    const TOKENS: u64 = 1024;
    const BYTES_PER_TOKEN: u64 = 4;
    let Some(ask) = ask else { return 1 };
    let output = ask.output_max.unwrap_or(0).saturating_mul(ask.choices);
    let parts = (ask.bytes / BYTES_PER_TOKEN).saturating_add(output) / TOKENS;
    u32::try_from(parts.min(u64::from(policy::COST_MAX) - 1)).unwrap_or(0) + 1
}

/// The accounts of a call that is a stream of requests.
#[derive(Debug)]
pub(crate) struct Counter {
    clock: Clock,
    metrics: Metrics,
    accounts: Vec<Arc<Account>>,
}

impl Counter {
    pub(crate) fn count(&self) -> Result<(), ApiError> {
        let now = self.clock.now();
        for account in &self.accounts {
            let counted = account.state.lock().count(now);
            counted.map_err(|over| account.over(&over, &self.metrics))?;
        }
        Ok(())
    }
}
