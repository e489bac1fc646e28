use std::sync::Arc;
use std::time::SystemTime;

use base::RequestId;
use serde::{Serialize, Serializer};

use crate::ledger::millis;
use crate::{Ledger, Stage, TraceContext};

/// A finished request, as `kapok explain` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub request_id: String,
    /// Shown as the trace's id, in lower-case hex as in `traceparent`.
    #[serde(rename = "trace_id", serialize_with = "shown")]
    pub context: TraceContext,
    /// What vendors keep of the caller's trace; only where that is recorded.
    #[serde(skip)]
    pub trace_state: Option<Box<str>>,
    /// Shown in milliseconds since 1970.
    #[serde(rename = "started_ms", serialize_with = "since_1970")]
    pub started: SystemTime,
    /// `_OTHER` if nobody knows it.
    #[serde(skip)]
    pub method: &'static str,
    /// The path with names in the places of values; empty where there is no one pattern.
    #[serde(skip)]
    pub route: &'static str,
    /// The door and the call: `openai chat.completions`, `oip infer`.
    pub operation: &'static str,
    pub model: String,
    /// Who answered: `local` or the upstream's name; empty when nobody was asked.
    #[serde(serialize_with = "text")]
    pub target: Arc<str>,
    /// Why that one.
    pub reason: String,
    /// HTTP status sent.
    pub status: u16,
    /// The public error message, if it failed.
    pub error: Option<String>,
    /// How it failed, of few words; empty if it did not.
    #[serde(skip)]
    pub error_type: &'static str,
    /// Whether the answer was sent to its end.
    pub complete: bool,
    pub total_ms: f64,
    pub stages: Vec<StageTime>,
    /// Each upstream that the request was sent to, in order.
    pub attempts: Vec<Attempt>,
    /// Of a request to a generative model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// What is known of a generative model's answer, as far as that is read on its way.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Generation {
    /// OpenTelemetry's word: `chat`, `text_completion`, `embeddings`.
    pub operation: &'static str,
    /// Whose server answered, likewise: `openai`, `anthropic`, or a kind of upstream.
    pub provider: &'static str,
    /// Whether a stream was asked for.
    pub stream: bool,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// From the request's head to the first part of a streamed answer.
    pub first_token_ms: Option<f64>,
    /// Between two tokens of a streamed answer, on average.
    pub per_token_ms: Option<f64>,
    /// Only where the trace is recorded.
    #[serde(skip)]
    pub details: Option<Box<Details>>,
}

/// What an answer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    pub id: Option<Box<str>>,
    pub model: Option<Box<str>>,
    pub finish_reason: Option<Box<str>>,
}

/// One upstream that was asked.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    #[serde(serialize_with = "text")]
    pub upstream: Arc<str>,
    /// Its host, without a port.
    #[serde(skip)]
    pub server: Arc<str>,
    #[serde(skip)]
    pub port: u16,
    /// What kind of server it is, in OpenTelemetry's words.
    #[serde(skip)]
    pub provider: &'static str,
    /// What it calls the model, if not as the client does.
    #[serde(skip)]
    pub model: Option<Arc<str>>,
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

impl Attempt {
    /// In a word, how far it came that failed: a status, or `connect`, `no_answer`, `incomplete`. Empty if it did not fail.
    pub fn error_type(&self) -> &'static str {
        let failed = self.failure.is_some();
        match self.status {
            Some(status) if status >= 400 => status_text(status),
            Some(_) if failed => "incomplete",
            None if failed && self.connect_ms.is_some() => "no_answer",
            None if failed => "connect",
            _ => "",
        }
    }
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

fn shown<S: Serializer>(context: &TraceContext, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(context)
}

fn since_1970<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    serializer.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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
    pub fn new(id: &RequestId, started: SystemTime, operation: &'static str) -> Self {
        Self {
            request_id: id.as_str().to_owned(),
            context: TraceContext::NONE,
            trace_state: None,
            started,
            method: "",
            route: "",
            operation,
            model: String::new(),
            target: Arc::default(),
            reason: String::new(),
            status: 0,
            error: None,
            error_type: "",
            complete: false,
            total_ms: 0.0,
            stages: Vec::new(),
            attempts: Vec::new(),
            generation: None,
        }
    }

    /// How many spans it becomes.
    pub fn spans(&self) -> u64 {
        1 + self.attempts.len() as u64
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

/// An HTTP status as text, of those that mean something here.
pub fn status_text(status: u16) -> &'static str {
    const KNOWN: [(u16, &str); 20] = [
        (200, "200"),
        (400, "400"),
        (401, "401"),
        (402, "402"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (408, "408"),
        (409, "409"),
        (413, "413"),
        (415, "415"),
        (422, "422"),
        (429, "429"),
        (499, "499"),
        (500, "500"),
        (501, "501"),
        (502, "502"),
        (503, "503"),
        (504, "504"),
        (529, "529"),
    ];
    let known = KNOWN.iter().find(|(number, _)| *number == status);
    known.map_or("_OTHER", |(_, text)| *text)
}
