mod attempts;
mod generation;
mod measure;

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use base::{Deadline, RequestId};
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use routing::Caller;
use telemetry::trace::{Ticket, Wire};
use telemetry::{Ledger, Record, Stage, TraceContext};

use crate::activity::Activity;
use crate::admission::{Ended, Ending, Metering, Permit};
use crate::alarm::Alarm;
use crate::deadline::{self, Patience};
use crate::gateway::Gateway;
use crate::headers::{GRPC_MESSAGE, REQUEST_ID, TRACEPARENT};
use crate::keepers::Keeping;
use crate::metrics::TargetMetrics;
use crate::operation::Operation;
use crate::pick::{Decision, Hints, Pick};
use crate::read::Held;
use crate::relay::Cut;
use crate::snapshot::Target;
use crate::upstream::Upstream;

pub(crate) use attempts::Attempts;
pub(crate) use generation::{Generation, Said};
use measure::{method, state};

/// nginx's "client closed request": what is recorded when the caller went away before there was an answer.
const CLIENT_GONE: u16 = 499;

/// What is answered when a deadline passes.
const DEADLINE: u16 = 504;

/// Of each text in a record: clients choose some of it, and a thousand records are kept.
const TEXT_BYTES_MAX: usize = 2 << 10;

/// One request from its head to the end of its answer. It settles when dropped, wherever that happens: at the end of
/// the body, in a handler whose client went away, or in a panic.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) gateway: Gateway,
    pub(crate) id: RequestId,
    pub(crate) operation: Operation,
    pub(crate) ledger: Ledger,
    pub(crate) deadline: Deadline,
    pub(crate) patience: Patience,
    /// For whatever this request waits for.
    pub(crate) alarm: Alarm,
    pub(crate) model: String,
    /// What is remembered of the routing where nobody was chosen.
    pub(crate) reason: String,
    pub(crate) hints: Hints,
    /// What the model is called where the request goes, if not as the client calls it.
    pub(crate) model_there: Option<Arc<str>>,
    decision: Option<Box<Decision>>,
    pub(crate) attempts: Attempts,
    /// Its place in the caller's trace, or in one that begins here.
    pub(crate) context: TraceContext,
    /// What vendors keep of the caller's trace; only where that is recorded.
    trace_state: Option<Box<str>>,
    method: &'static str,
    /// What its answer says of itself, where a generative model makes it.
    pub(crate) generation: Generation,
    /// How it is learnt what it used.
    pub(crate) metering: Metering,
    /// How long the client's socket had taken nothing when that was last booked.
    stalled: Duration,
    /// Whether the time that passes is an upstream's, which has yet to send the next part of its answer.
    gap: bool,
    /// Who asks, as far as upstreams are judged by it.
    pub(crate) caller: Caller,
    /// The public message, if it failed.
    pub(crate) error: Option<String>,
    /// Whether the answer reached its end.
    pub(crate) complete: bool,
    /// What the time is booked to that has passed when the request fails or is given up.
    pub(crate) doing: Stage,
    /// Whether a client that waits for `100 Continue` was told to send.
    pub(crate) body_asked_for: bool,
    /// Set if this request is traced.
    pub(crate) trace: Option<Box<Ticket>>,
    /// Whether a web page sent it: browsers name the page's origin with every POST.
    pub(crate) from_page: bool,
    /// What the request's body takes of the memory for bodies.
    pub(crate) body_held: Option<Arc<Held>>,
    /// What it holds of what is limited; none where nothing is.
    pub(crate) permit: Option<Box<Permit>>,
    /// What of it is kept by whom; none for most.
    pub(crate) keeping: Option<Box<Keeping>>,
    /// The client's connection, which is not idle while this lives.
    connection: Activity,
    target: Option<Arc<TargetMetrics>>,
    started: SystemTime,
    pub(crate) status: u16,
}

impl Exchange {
    pub(crate) fn begin(gateway: &Gateway, connection: Activity, head: &Parts) -> Box<Self> {
        let timer = connection.begin();
        let shared = gateway.shared();
        let now = shared.clock.now();
        shared.metrics.in_flight().inc();
        let patience = deadline::patience(&head.headers);
        let budget = patience.total.unwrap_or(shared.config.request_timeout);
        let id = head.headers.get(REQUEST_ID).map(|value| value.as_bytes());
        let mut context = context(&head.headers);
        let mut trace_state = None;
        if let Some(spans) = &shared.spans {
            spans.choose(&mut context);
            if context.sampled() && context.inherited() {
                trace_state = state(&head.headers);
            }
        }
        Box::new(Self {
            gateway: gateway.clone(),
            connection,
            id: RequestId::from_client(id),
            operation: Operation::Unknown,
            ledger: Ledger::start(now),
            deadline: Deadline::after(now, budget),
            patience,
            alarm: Alarm::new(shared.clock.clone(), timer),
            model: String::new(),
            reason: String::new(),
            hints: Hints::default(),
            model_there: None,
            decision: None,
            attempts: Attempts::default(),
            context,
            trace_state,
            method: method(&head.method),
            generation: Generation::default(),
            metering: Metering::Off,
            stalled: Duration::ZERO,
            gap: false,
            caller: Caller::NOBODY,
            error: None,
            complete: false,
            doing: Stage::Read,
            body_asked_for: false,
            trace: None,
            from_page: head.headers.contains_key(http::header::ORIGIN),
            body_held: None,
            permit: None,
            keeping: None,
            target: None,
            started: shared.clock.wall(),
            status: CLIENT_GONE,
        })
    }

    /// Books the time since the previous mark.
    pub(crate) fn mark(&mut self, stage: Stage) {
        self.ledger.mark(stage, self.gateway.shared().clock.now());
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.left(self.gateway.shared().clock.now())
    }

    /// What a trace says of the answer.
    pub(crate) fn answered(&mut self, response: &protocol::InferResponse) {
        if let Some(ticket) = &mut self.trace {
            response.version.clone_into(&mut ticket.version);
            ticket.request_id = response.id.clone().unwrap_or_default();
        }
    }

    /// Who answers, and why. Told again when another is tried.
    pub(crate) fn chosen(&mut self, pick: Pick) -> Target {
        let shared = self.gateway.shared();
        let metrics = match &pick.target {
            Target::Local => Arc::clone(&shared.local),
            Target::Upstream(upstream) => upstream
                .live
                .metrics
                .get()
                .map_or_else(|| shared.metrics.target(&upstream.name), Arc::clone),
        };
        self.target = Some(metrics);
        let before = self.decision.replace(Box::new(pick.decision));
        self.attempts.decided_before(before);
        // A path is no model's name, and stays.
        self.model_there = pick.model.filter(|_| !self.goes_by_path());
        if let Target::Local = pick.target {
            self.sample();
        }
        pick.target
    }

    /// Whether it names no model.
    pub(crate) fn goes_by_path(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| keeping.by_path)
    }

    /// Who alone has what it is about.
    pub(crate) fn keeper(&self) -> Option<&Arc<Upstream>> {
        self.keeping.as_ref()?.keeper.as_ref()
    }

    /// An answer begins: the id of what it made can be read, if it made anything.
    pub(crate) fn keeps(&mut self, status: StatusCode, headers: &HeaderMap) {
        if let Some(keeping) = &mut self.keeping
            && (!status.is_success() || headers.contains_key(CONTENT_ENCODING))
        {
            keeping.scan = None;
        }
    }

    /// A part of an upstream's answer passes.
    pub(crate) fn passes(&mut self, part: &Poll<Option<Result<Frame<Bytes>, Cut>>>) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        let (Some(scan), Poll::Ready(Some(Ok(frame)))) = (&mut keeping.scan, part) else {
            return;
        };
        let found = frame.data_ref().and_then(|data| scan.look(data));
        if let (Some(id), Some(target)) = (&found, &self.target) {
            self.gateway.shared().keepers.keep(id, target.name());
        }
        if found.is_some() || scan.ended() {
            keeping.scan = None;
        }
    }

    /// Books the time of an attempt that ended: until there was a connection, and from then on.
    pub(crate) fn mark_attempt(&mut self, connected_at: Option<Instant>) {
        if let Some(connected_at) = connected_at {
            self.ledger.mark(Stage::Connect, connected_at);
        }
        self.mark(connected_at.map_or(Stage::Connect, |_| Stage::Upstream));
    }

    /// The request goes to this upstream as well.
    pub(crate) fn attempt_begins(&mut self, upstream: &Arc<Upstream>) {
        let now = self.gateway.shared().clock.now();
        let model = self.model_there.clone();
        self.attempts.begin(upstream, model, now);
    }

    /// An upstream answered, perhaps not what is wanted.
    pub(crate) fn head_came(
        &mut self,
        upstream: &Upstream,
        status: u16,
        (connected_at, came_at): (Instant, Instant),
    ) {
        let name = &upstream.name;
        self.attempts.connected(name, Some(connected_at));
        self.attempts.answered(name, status, came_at);
    }

    /// An upstream was asked in vain, or was not waited for.
    pub(crate) fn passed_over(&mut self, upstream: &Upstream, why: &str) {
        let now = self.gateway.shared().clock.now();
        self.attempts.passed_over(&upstream.name, why, now);
    }

    /// Several were asked, and it was this one that answered.
    pub(crate) fn answered_by(&mut self, upstream: &Upstream) {
        if let Some(metrics) = upstream.live.metrics.get() {
            self.target = Some(Arc::clone(metrics));
        }
    }

    /// A stream of requests, which only this process answers.
    pub(crate) fn answered_here(&mut self) {
        self.target = Some(Arc::clone(&self.gateway.shared().local));
        self.reason = "a stream is answered here".to_owned();
    }

    /// An inference of a model of this process: perhaps it is one to trace.
    fn sample(&mut self) {
        let wire = match self.operation {
            Operation::Infer => Wire::Http,
            Operation::GrpcInfer => Wire::Grpc,
            _ => return,
        };
        self.trace = self.gateway.shared().tracer.sample(&self.model, wire);
    }

    /// The answer's head is ready.
    pub(crate) fn head_ready(&mut self, status: u16) {
        self.status = status;
        self.doing = Stage::Send;
        self.stalled = self.connection.stalled_in_all(self.ledger.last());
        let seconds = self.ledger.total().as_secs_f64();
        self.target_metrics().first_byte(self.operation, seconds);
    }

    /// An upstream's answer was asked for its next part: if there is none yet, the time that passes is the upstream's.
    pub(crate) fn note_gap<T>(&mut self, next: &Poll<T>) {
        if next.is_pending() == self.gap {
            return;
        }
        self.gap = next.is_pending();
        let now = self.gateway.shared().clock.now();
        if self.gap {
            self.mark_sent(now);
            self.doing = Stage::Gap;
        } else {
            self.ledger.mark(Stage::Gap, now);
            self.stalled = self.connection.stalled_in_all(now);
            self.doing = Stage::Send;
        }
    }

    /// Books the time of sending: what the client's socket took nothing of it apart.
    fn mark_sent(&mut self, now: Instant) {
        let stalled = self.connection.stalled_in_all(now);
        let part = stalled.saturating_sub(self.stalled);
        self.stalled = stalled;
        self.ledger
            .mark_parts(&[(Stage::Stall, part)], Stage::Send, now);
    }

    /// How an upstream says that a gRPC call went: its head was HTTP's 200 all the same.
    pub(crate) fn call_ended(&mut self, code: u16, trailers: &HeaderMap) {
        if code == 0 {
            return;
        }
        self.status = protocol::status::http_of_grpc(code);
        let message = trailers.get(GRPC_MESSAGE);
        let message = message.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
        self.error = Some(message.unwrap_or_else(|| format!("gRPC status {code}")));
    }

    /// Whether it becomes spans.
    pub(crate) fn recorded(&self) -> bool {
        self.context.sampled() && self.gateway.shared().spans.is_some()
    }

    /// What its tokens are charged by.
    fn ending(&self) -> Ending {
        match self.status {
            200..300 => Ending::Answered,
            CLIENT_GONE if matches!(self.doing, Stage::Upstream | Stage::Infer) => {
                Ending::Abandoned
            }
            _ => Ending::Nothing,
        }
    }

    /// What its place tells those who wait for one: an error says nothing of how long an answer takes.
    fn place_ended(&self) -> Option<Ended> {
        match (self.status, self.complete) {
            (200..300, true) => Some(Ended::Done),
            (200..300 | CLIENT_GONE, false) | (DEADLINE, _) => Some(Ended::Cut),
            _ => None,
        }
    }

    fn target_metrics(&self) -> &TargetMetrics {
        self.target
            .as_ref()
            .unwrap_or_else(|| &self.gateway.shared().nobody)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = self.gateway.shared().clock.now();
        match self.doing {
            Stage::Send => self.mark_sent(now),
            doing => self.ledger.mark(doing, now),
        }
        self.connection.end(now, self.alarm.take());
        let ending = self.ending();
        let mut permit = self.permit.take();
        if let Some(permit) = &mut permit {
            permit.settle(ending, &self.metering);
            permit.place_ended(self.place_ended());
        }
        if let Some(ticket) = self.trace.take() {
            ticket.settle(self.started, &self.ledger);
        }
        let shared = self.gateway.shared();
        shared.metrics.in_flight().dec();
        let total = self.ledger.total().as_secs_f64();
        self.target_metrics()
            .settled(self.operation, self.status, total);
        let generation = self.measure(total);
        if !self.operation.remembered() {
            return;
        }
        let error_type = self.error_type();
        let attempts = self.told(now);
        let mut record = Record::new(&self.id, self.started, self.operation.name());
        record.model = cut(std::mem::take(&mut self.model));
        record.target = self
            .target
            .as_ref()
            .map_or_else(Arc::default, |target| Arc::clone(target.name()));
        let waited = permit.and_then(|permit| permit.waited());
        let reason = std::mem::take(&mut self.reason);
        record.reason = cut(reason + waited.as_deref().unwrap_or_default());
        record.status = self.status;
        record.error = self.error.take().map(cut);
        record.complete = self.complete;
        record.settle(&self.ledger);
        record.context = self.context;
        record.trace_state = self.trace_state.take();
        record.method = self.method;
        record.route = self.operation.route().1;
        record.error_type = error_type;
        record.attempts = attempts;
        record.generation = generation;
        let shared = self.gateway.shared();
        tracing::debug!(
            request_id = self.id.as_str(),
            trace_id = %record.context,
            operation = record.operation,
            model = record.model,
            target = &*record.target,
            status = record.status,
            error = record.error,
            complete = record.complete,
            total_ms = record.total_ms,
            "request"
        );
        let record = Arc::new(record);
        if let Some(spans) = &shared.spans
            && record.context.sampled()
        {
            spans.push(&record);
        }
        shared.recent.push(record);
    }
}

/// More than one `traceparent` is none.
fn context(headers: &HeaderMap) -> TraceContext {
    let mut said = headers.get_all(TRACEPARENT).iter();
    let first = said.next().filter(|_| said.next().is_none());
    TraceContext::follow(first.map(http::HeaderValue::as_bytes))
}

/// At most [`TEXT_BYTES_MAX`], the memory of what is cut off included.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_fits_in_what_the_allocator_keeps_for_each_thread() {
        // glibc's limit. A larger block goes back under a lock, to the thread that it came from.
        const KEPT_BYTES_MAX: usize = 1032;
        let bytes = size_of::<Exchange>();
        assert!(bytes <= KEPT_BYTES_MAX, "{bytes}");
    }
}
