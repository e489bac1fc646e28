use std::time::{Duration, Instant};

use base::push_thousandths;
use serde::Serialize;

/// Where a request's time can go. One request visits a few of them, some more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Receiving the request's body.
    Read,
    /// Making sense of it.
    Parse,
    /// Key, limits, deadline.
    Admit,
    /// Choosing who answers.
    Route,
    /// Waiting for a lane.
    Queue,
    /// Preparing inputs: alignment, tokenising.
    Input,
    /// The engine.
    Infer,
    /// Preparing outputs: pooling, normalising, selecting.
    Output,
    /// Getting a connection to the upstream.
    Connect,
    /// From the request's last byte sent to the answer's head received.
    Upstream,
    /// Writing the answer in the protocol's form.
    Encode,
    /// Waiting for the next part of an upstream's answer, after its head.
    Gap,
    /// Waiting for the client's socket to take bytes.
    Stall,
    /// Sending the answer's body.
    Send,
}

impl Stage {
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::Parse,
        Self::Admit,
        Self::Route,
        Self::Queue,
        Self::Input,
        Self::Infer,
        Self::Output,
        Self::Connect,
        Self::Upstream,
        Self::Encode,
        Self::Gap,
        Self::Stall,
        Self::Send,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Parse => "parse",
            Self::Admit => "admit",
            Self::Route => "route",
            Self::Queue => "queue",
            Self::Input => "input",
            Self::Infer => "infer",
            Self::Output => "output",
            Self::Connect => "connect",
            Self::Upstream => "upstream",
            Self::Encode => "encode",
            Self::Gap => "gap",
            Self::Stall => "stall",
            Self::Send => "send",
        }
    }
}

/// The time account of one request. It has one owner at a time and balances by construction: each mark closes the span
/// since the previous mark, so the stages always sum to the time from start to the last mark.
#[derive(Debug)]
pub struct Ledger {
    started: Instant,
    last: Instant,
    /// Nanoseconds: half as large as a `Duration`.
    spent_ns: [u64; Stage::ALL.len()],
}

impl Ledger {
    pub fn start(now: Instant) -> Self {
        Self {
            started: now,
            last: now,
            spent_ns: [0; Stage::ALL.len()],
        }
    }

    /// Books everything since the previous mark to `stage`.
    pub fn mark(&mut self, stage: Stage, now: Instant) {
        self.book(stage, now.saturating_duration_since(self.last));
        self.last = self.last.max(now);
    }

    /// Divides everything since the previous mark: each part as given, what remains to `rest`. Parts measured elsewhere
    /// (an engine thread) can exceed the span by clock grain; they are cut so that the account still balances.
    pub fn mark_parts(&mut self, parts: &[(Stage, Duration)], rest: Stage, now: Instant) {
        let mut left = now.saturating_duration_since(self.last);
        for (stage, duration) in parts {
            let booked = left.min(*duration);
            self.book(*stage, booked);
            left -= booked;
        }
        self.book(rest, left);
        self.last = self.last.max(now);
    }

    fn book(&mut self, stage: Stage, span: Duration) {
        // A span of five centuries is none.
        self.spent_ns[stage as usize] += u64::try_from(span.as_nanos()).unwrap_or(0);
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the last mark was made.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// Time from start to the last mark: what the stages sum to.
    pub fn total(&self) -> Duration {
        self.last.saturating_duration_since(self.started)
    }

    pub fn spent(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.spent_ns[stage as usize])
    }

    /// Visited stages in the order of [`Stage::ALL`].
    pub fn stages(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL
            .into_iter()
            .map(|stage| (stage, self.spent(stage)))
            .filter(|(_, spent)| !spent.is_zero())
    }

    /// The `Server-Timing` value: milliseconds with microsecond grain, `total` last
    /// (<https://www.w3.org/TR/server-timing/>).
    pub fn server_timing(&self) -> String {
        let mut text = String::with_capacity(SERVER_TIMING_BYTES);
        for (stage, spent) in self.stages() {
            text.push_str(stage.name());
            text.push_str(";dur=");
            push_thousandths(&mut text, micros(spent));
            text.push_str(", ");
        }
        text.push_str("total;dur=");
        push_thousandths(&mut text, micros(self.total()));
        text
    }
}

/// Enough for a relayed request's: each of eight stages and the total in twenty bytes.
const SERVER_TIMING_BYTES: usize = 192;

/// To the nearest.
fn micros(duration: Duration) -> u64 {
    u64::try_from((duration.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_sum_to_the_total_whatever_is_booked() {
        let start = base::Clock::manual().now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ledger = Ledger::start(start);
        ledger.mark(Stage::Read, at(2));
        ledger.mark(Stage::Parse, at(3));
        let measured_elsewhere = [
            (Stage::Queue, Duration::from_millis(4)),
            (Stage::Infer, Duration::from_millis(50)),
        ];
        ledger.mark_parts(&measured_elsewhere, Stage::Output, at(40));
        ledger.mark(Stage::Read, at(39));
        ledger.mark(Stage::Send, at(41));
        let sum: Duration = ledger.stages().map(|(_, spent)| spent).sum();
        assert_eq!(sum, ledger.total());
        assert_eq!(ledger.total(), Duration::from_millis(41));
        assert_eq!(ledger.spent(Stage::Infer), Duration::from_millis(33));
        assert_eq!(
            ledger.server_timing(),
            "read;dur=2.000, parse;dur=1.000, queue;dur=4.000, infer;dur=33.000, send;dur=1.000, total;dur=41.000"
        );
    }
}
