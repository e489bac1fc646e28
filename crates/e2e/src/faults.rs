//! The wall: sixteen faults of a provider, and what a gateway before it and one fallback makes of each.
//!
//! The faults, their times and the way they are judged are those of failoverbench v0.1, a public benchmark of gateways
//! (<https://github.com/failoverbench/failoverbench>, `scenarios/catalogue.yaml`, `METHODOLOGY.md`), with one addition: a
//! stream that is cut after its last word. The code and the answer are our own, so figures are comparable and not equal.
//!
//! Reading order: [`Scenario`] (what happens), [`Scenario::play`] (one caller before a gateway), [`verdict`] (pass, partial,
//! safe or fail).

mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use base::{Clock, Deadline};

use crate::chat::{Chat, End, Told};
use crate::client::Client;
use crate::provider::{ANSWER, Attempt, Fault, Prefix, Provider, Refusal};
use crate::wait;

pub use verdict::{Check, Judgement, Verdict};

/// What [`Stage::kapok_yaml`] calls the two.
pub const MODEL: &str = "wall";
pub const FALLBACK_MODEL: &str = "wall-fallback";

/// For ever, to a request.
const ALWAYS: usize = usize::MAX;

const PROMPT: &str = "Explain in sixty words what the kapok tree has to do with a gateway.";

/// One fault.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub id: &'static str,
    pub title: &'static str,
    pub fault: Fault,
    /// What the fallback makes of a prefix.
    pub fallback: Prefix,
    /// After this a call is a hang.
    pub patience: Duration,
    pub checks: &'static [Check],
    pub calls: Calls,
}

/// How often the caller asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    Once,
    /// So often, at this interval.
    Every {
        count: u32,
        interval: Duration,
    },
}

/// Where a gateway listens, and the names under which it knows the two providers.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub address: SocketAddr,
    /// With a fault, and with a fallback behind it.
    pub model: String,
    /// The fallback's own; none where both providers are one model, and what asks for it is not judged.
    pub fallback_model: Option<String>,
}

/// What callers and providers saw.
#[derive(Debug)]
pub struct Observed {
    pub calls: Vec<Call>,
    pub primary: Vec<Attempt>,
    pub fallback: Vec<Attempt>,
    pub fallback_model: Option<String>,
    /// Whether a healthy model was answered for right after, if it could be asked for.
    pub alive: Option<bool>,
}

/// One call; times are since the first.
#[derive(Debug)]
pub struct Call {
    pub began: Duration,
    pub told: Told,
}

impl Call {
    pub fn rescued(&self) -> bool {
        self.told.end == End::Complete && self.told.text == ANSWER
    }
}

/// The two providers of one scenario.
#[derive(Debug)]
pub struct Stage {
    pub scenario: Scenario,
    pub primary: Provider,
    pub fallback: Provider,
}

impl Stage {
    pub fn of(scenario: Scenario) -> Self {
        Self {
            primary: Provider::start(scenario.fault, Prefix::Continued),
            fallback: Provider::start(Fault::None, scenario.fallback),
            scenario,
        }
    }

    /// Calls as the scenario says and waits for what comes of it.
    pub fn play(&self, gateway: &Gateway) -> Observed {
        let client = Client::to(gateway.address);
        let chat = Chat::streaming(&gateway.model, PROMPT).within(self.scenario.patience);
        let clock = Clock::real();
        let began = clock.now();
        let since = || clock.now().saturating_duration_since(began);
        let call = || {
            let began = since();
            let told = chat.ask(&client);
            Call { began, told }
        };
        // Two providers behind one name are asked by turns: the one that matters may not be the first.
        let mut calls = vec![call()];
        while self.primary.attempts().is_empty() && calls.len() < 8 {
            calls = vec![call()];
        }
        if let Calls::Every { count, interval } = self.scenario.calls {
            for turn in 1..count {
                let due = Deadline::after(began, interval * turn);
                wait::within(interval, || due.passed(clock.now()).then_some(()));
                calls.push(call());
            }
        }
        let (primary, fallback) = (self.primary.attempts(), self.fallback.attempts());
        let alive = gateway.fallback_model.as_ref().map(|model| {
            let healthy = Chat::whole(model, PROMPT).within(Duration::from_secs(10));
            let told = healthy.ask(&client);
            told.end == End::Complete && told.text == ANSWER
        });
        Observed {
            calls,
            primary,
            fallback,
            fallback_model: gateway.fallback_model.clone(),
            alive,
        }
    }

    /// `kapok.yaml` for it: what a user has to write for "one fallback" and "30 seconds", and no more.
    pub fn kapok_yaml(&self) -> String {
        let resource = |kind: &str, name: &str, spec: &str| {
            format!(
                "---\napiVersion: kapok.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
            )
        };
        let upstream = |name: &str, provider: &Provider, models: &str| {
            let spec = format!("{{url: {:?}, models: [{models}]}}", provider.url());
            resource("Upstream", name, &spec)
        };
        let route = format!(
            "{{models: [{MODEL}], targets: [{{upstream: primary}}], fallback: [{{upstream: fallback, model: {FALLBACK_MODEL}}}]}}"
        );
        upstream("primary", &self.primary, "never-asked-for")
            + &upstream("fallback", &self.fallback, FALLBACK_MODEL)
            + &resource("Route", "wall", &route)
            + &resource("Node", "node", "{requestTimeoutMs: 30000}")
    }

    pub fn judge(&self, observed: &Observed) -> Judgement {
        verdict::judge(&self.scenario, observed)
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn refuses(refusal: Refusal, first: usize) -> Fault {
    Fault::Refuses { refusal, first }
}

const fn once(
    id: &'static str,
    title: &'static str,
    fault: Fault,
    patience_s: u64,
    checks: &'static [Check],
) -> Scenario {
    Scenario {
        id,
        title,
        fault,
        fallback: Prefix::Continued,
        patience: seconds(patience_s),
        checks,
        calls: Calls::Once,
    }
}

/// In the catalogue's order. Times are the published ones.
pub const SCENARIOS: [Scenario; 17] = [
    once(
        "S01",
        "429 with Retry-After, once",
        refuses(
            Refusal::RateLimit {
                retry_after_s: Some(2),
            },
            1,
        ),
        20,
        &[
            Check::PrimaryAtLeast(2),
            Check::FirstGapAtLeast(Duration::from_millis(1800)),
            Check::PrimaryWithin(Duration::from_millis(1500), 2),
        ],
    ),
    once(
        "S02",
        "429 without Retry-After, always",
        refuses(
            Refusal::RateLimit {
                retry_after_s: None,
            },
            ALWAYS,
        ),
        40,
        &[Check::PrimaryWithin(seconds(3), 4), Check::PrimaryAtMost(6)],
    ),
    once(
        "S03",
        "500 once",
        refuses(Refusal::ServerError, 1),
        20,
        &[Check::PrimaryAtLeast(2)],
    ),
    once(
        "S04",
        "503 always",
        refuses(Refusal::Overloaded, ALWAYS),
        40,
        &[Check::PrimaryAtMost(6)],
    ),
    once(
        "S05",
        "TCP reset before the answer, once",
        Fault::Resets { first: 1 },
        20,
        &[],
    ),
    once(
        "S06",
        "120 s of silence",
        Fault::Silent(seconds(120)),
        130,
        &[Check::EndsWithin(seconds(100)), Check::SilentNotRetried],
    ),
    once(
        "S07",
        "first token after 20 s",
        Fault::SlowStart(seconds(20)),
        60,
        &[Check::FirstTextLimit(seconds(15))],
    ),
    once(
        "S08",
        "stream cut after 40 of 60 tokens",
        Fault::CutsAfter(40),
        40,
        &[],
    ),
    once(
        "S08b",
        "stream cut after 60 of 60 tokens",
        Fault::CutsAfter(60),
        40,
        &[],
    ),
    once(
        "S09",
        "30 s stall after 20 tokens",
        Fault::StallsAfter(20, seconds(30)),
        70,
        &[Check::EndsWithin(seconds(45)), Check::Alive],
    ),
    once(
        "S10",
        "malformed event in the stream",
        Fault::GarblesAt(10),
        30,
        &[Check::Alive],
    ),
    once(
        "S11",
        "end without [DONE]",
        Fault::NoDone,
        30,
        &[Check::EndsWithin(seconds(8)), Check::Usage],
    ),
    once(
        "S12",
        "context length exceeded, always",
        refuses(Refusal::ContextLength, ALWAYS),
        20,
        &[Check::PrimaryExactly(1)],
    ),
    once(
        "S13",
        "content filter, always",
        refuses(Refusal::ContentFilter, ALWAYS),
        20,
        &[Check::PrimaryExactly(1)],
    ),
    Scenario {
        fallback: Prefix::Refused,
        ..once(
            "S14",
            "stream cut, fallback refuses a prefix",
            Fault::CutsAfter(40),
            40,
            &[Check::PrefixRefusalNotPassedOn],
        )
    },
    Scenario {
        calls: Calls::Every {
            count: 20,
            // The published 4 s would make it 76 s; the outage is as long.
            interval: Duration::from_millis(3300),
        },
        ..once(
            "S15",
            "down for 60 s, under 20 requests",
            Fault::Flaps(seconds(60)),
            30,
            &[
                Check::ServedWhileDown(seconds(60)),
                Check::BackWithin(seconds(60), seconds(30)),
            ],
        )
    },
    once(
        "S16",
        "accounting after fail-over",
        refuses(Refusal::Overloaded, ALWAYS),
        40,
        &[Check::FallbackNamed, Check::Usage, Check::PrimaryAtMost(6)],
    ),
];

#[cfg(test)]
mod tests;
