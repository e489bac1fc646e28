use std::sync::Arc;
use std::time::SystemTime;

use base::RequestId;
use serde::{Serialize, Serializer};

use crate::ledger::millis;
use crate::{Ledger, Stage};

/// A finished request, as `kapok explain` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub request_id: String,
    /// In lower-case hex, as in `traceparent`.
    pub trace_id: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// The door and the call: `openai chat.completions`, `oip infer`.
    pub operation: &'static str,
    pub model: String,
    /// Who answered: `local` or the upstream's name; empty when nobody was asked.
    pub target: String,
    /// Why that one.
    pub reason: String,
    /// HTTP status sent.
    pub status: u16,
    /// The public error message, if it failed.
    pub error: Option<String>,
    /// Whether the answer was sent to its end.
    pub complete: bool,
    pub total_ms: f64,
    pub stages: Vec<StageTime>,
    /// Each upstream that the request was sent to, in order.
    pub attempts: Vec<Attempt>,
}

/// One upstream that was asked.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    #[serde(serialize_with = "text")]
    pub upstream: Arc<str>,
    /// In hex: the parent of what the upstream tells of it.
    #[serde(serialize_with = "hex")]
    pub span_id: [u8; 8],
    /// From the request's head.
    pub started_ms: f64,
    /// Until there was a connection; none if there was none.
    pub connect_ms: Option<f64>,
    /// From then to the answer's head.
    pub first_byte_ms: Option<f64>,
    /// From its start to its end, or to the request's.
    pub total_ms: f64,
    /// Of the answer's head, if one came.
    pub status: Option<u16>,
    /// Why it was not the one, or what became of its answer; none if all went well.
    pub failure: Option<String>,
    /// Why it was asked, where the request's `reason` is another's.
    pub reason: Option<String>,
    /// What the policy went by.
    pub rule: &'static str,
    /// What the scores are in.
    pub unit: &'static str,
    /// Who was looked at; some of them, where there are many.
    pub candidates: Vec<Candidate>,
}

/// Somebody who was looked at in a routing decision.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    #[serde(serialize_with = "text")]
    pub upstream: Arc<str>,
    /// Lower is better; none for one that cannot be used.
    pub score: Option<f32>,
    /// `chosen`, `worse`, `unusable` or `overloaded`.
    pub verdict: &'static str,
}

fn hex<S: Serializer>(id: &[u8; 8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}", u64::from_be_bytes(*id)))
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

#[derive(Debug, Clone, Serialize)]
pub struct StageTime {
    pub stage: Stage,
    pub ms: f64,
}

impl Record {
    pub fn new(id: &RequestId, wall_at_start: SystemTime, operation: &'static str) -> Self {
        let since_epoch = wall_at_start
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            request_id: id.as_str().to_owned(),
            trace_id: String::new(),
            started_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            operation,
            model: String::new(),
            target: String::new(),
            reason: String::new(),
            status: 0,
            error: None,
            complete: false,
            total_ms: 0.0,
            stages: Vec::new(),
            attempts: Vec::new(),
        }
    }

    /// Takes the times over from the ledger.
    pub fn settle(&mut self, ledger: &Ledger) {
        self.total_ms = millis(ledger.total());
        let stages = ledger.stages().map(|(stage, spent)| StageTime {
            stage,
            ms: millis(spent),
        });
        self.stages.reserve_exact(Stage::ALL.len() / 2);
        self.stages.extend(stages);
    }
}
