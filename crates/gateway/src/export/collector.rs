use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Backoff, Clock, Tasks};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use protocol::otlp::Exported;
use protocol::resource::{OtlpProtocol, OtlpSpec, Secret, UpstreamSpec};
use telemetry::spans::{Fate, Fates};
use tokio::time::timeout;

use crate::Error;
use crate::grpc;
use crate::relay::retry_after;
use crate::upstream::{Answer, Upstream, Via, post};

/// So often a batch is sent; then it is given up.
const TRIES_MAX: u32 = 5;

/// Between two tries, unless the collector says how long: OpenTelemetry's SDKs begin with a second too.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What it asks for is believed up to here: the next batches wait behind this one.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// Collectors answer with a few bytes, or with an error in words.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// An envelope's flag for what is not compressed.
const PLAIN: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    fn path(self, via: Via) -> &'static str {
        match (self, via) {
            (Self::Traces, Via::Http) => "/v1/traces",
            (Self::Metrics, Via::Http) => "/v1/metrics",
            (Self::Traces, Via::Grpc) => {
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            }
            (Self::Metrics, Via::Grpc) => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
        }
    }
}

/// Who takes spans and metrics.
#[derive(Debug)]
pub(super) struct Collector {
    upstream: Upstream,
    via: Via,
    headers: HeaderMap,
    timeout: Duration,
    clock: Clock,
    tasks: Tasks,
    fates: Fates,
    /// Whether somebody was told that it does not answer, and not yet that it does again.
    failing: AtomicBool,
}

/// How a try ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// So many it did not want, and why.
    Taken(u64, String),
    /// Another try would end the same.
    Refused(String),
    /// Not now. It may say when.
    Later(String, Option<Duration>),
}

impl Collector {
    pub(super) fn new(
        spec: &OtlpSpec,
        endpoint: &str,
        fates: Fates,
        (clock, tasks): (&Clock, &Tasks),
    ) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Resource {
            kind: "Node",
            name: "otlp".to_owned(),
            reason,
        };
        let via = match spec.protocol {
            OtlpProtocol::Http => Via::Http,
            OtlpProtocol::Grpc => Via::Grpc,
        };
        let upstream = UpstreamSpec {
            grpc_url: (via == Via::Grpc).then(|| endpoint.to_owned()),
            ..UpstreamSpec::at(endpoint)
        };
        Ok(Self {
            upstream: Upstream::new("otlp", &upstream, 0).map_err(wrong)?,
            via,
            headers: headers(spec, via).map_err(wrong)?,
            timeout: Duration::from_millis(spec.timeout_ms),
            clock: clock.clone(),
            tasks: tasks.clone(),
            fates,
            failing: AtomicBool::new(false),
        })
    }

    /// Sends it, again where that can help, and counts what became of it.
    pub(super) async fn send(&self, signal: Signal, body: Bytes, count: u64) {
        let body = match self.via {
            Via::Http => body,
            Via::Grpc => envelope(&body),
        };
        let mut backoff = Backoff::new(WAIT, WAIT_MAX, count);
        let mut tries = 0;
        let (lost, fate) = loop {
            tries += 1;
            match self.ask(signal, &body).await {
                End::Taken(0, _) => {
                    self.works_again();
                    break (0, Fate::Refused);
                }
                End::Taken(rejected, why) => {
                    self.fails(signal, &why);
                    break (rejected.min(count), Fate::Refused);
                }
                End::Refused(why) => {
                    self.fails(signal, &why);
                    break (count, Fate::Refused);
                }
                End::Later(why, asked) => {
                    self.fails(signal, &why);
                    // When the node ends there is one try for everything.
                    if tries >= TRIES_MAX || self.tasks.stopping() {
                        break (count, Fate::Unreachable);
                    }
                    let wait =
                        asked.map_or_else(|| backoff.next_wait(), |asked| asked.min(ASKED_MAX));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.tasks.stopped() => {}
                    }
                }
            }
        };
        let of = |fate| self.fates.of(signal.name(), fate);
        of(Fate::Sent).add(count - lost);
        if lost > 0 {
            of(fate).add(lost);
        }
    }

    async fn ask(&self, signal: Signal, body: &Bytes) -> End {
        let to = (self.via, signal.path(self.via));
        let asked = post(
            &self.upstream,
            to,
            (&self.headers, body),
            (&self.tasks, &self.clock),
            ANSWER_BYTES_MAX,
        );
        match timeout(self.timeout, asked).await {
            Err(_elapsed) => {
                let why = format!("it did not answer within {} ms", self.timeout.as_millis());
                End::Later(why, None)
            }
            Ok(Err(error)) => End::Later(base::chain(&error), None),
            Ok(Ok(answer)) => {
                let asked = retry_after::said(&answer.headers, self.clock.wall());
                judge(&answer, self.via, asked)
            }
        }
    }

    fn fails(&self, signal: Signal, why: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                collector = self.upstream.address.shown,
                "{} are not exported: {why}",
                signal.name()
            );
        }
    }

    fn works_again(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            let collector = &self.upstream.address.shown;
            tracing::info!(collector, "the collector takes exports again");
        }
    }
}

fn headers(spec: &OtlpSpec, via: Via) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, secret) in &spec.headers {
        let Secret::Value(value) = secret else {
            return Err(format!("otlp.headers.{name} was not looked up"));
        };
        let bad = || format!("otlp.headers.{name} is no header");
        let key: HeaderName = name.parse().map_err(|_| bad())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static("kapok"));
    let kind = match via {
        Via::Http => "application/x-protobuf",
        Via::Grpc => "application/grpc",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if via == Via::Grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(headers)
}

/// gRPC's, around a message that is not compressed.
fn envelope(message: &Bytes) -> Bytes {
    let mut whole = BytesMut::with_capacity(5 + message.len());
    whole.put_u8(PLAIN);
    whole.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    whole.extend_from_slice(message);
    whole.freeze()
}

/// What an answer means (<https://opentelemetry.io/docs/specs/otlp/>).
fn judge(answer: &Answer, via: Via, asked: Option<Duration>) -> End {
    let status = answer.status.as_u16();
    match status {
        200..300 => {}
        429 | 502..=504 => return End::Later(format!("it answered {status}"), asked),
        _ => return End::Refused(format!("it answered {status}{}", words(&answer.body))),
    }
    let mut message = answer.body.clone();
    if via == Via::Grpc {
        let ended = answer.trailers.as_ref().unwrap_or(&answer.headers);
        match grpc::status(ended) {
            Some(0) => {}
            // Cancelled, deadline exceeded, exhausted, aborted, out of range, unavailable, data loss.
            Some(code @ (1 | 4 | 8 | 10 | 11 | 14 | 15)) => {
                return End::Later(format!("it answered gRPC status {code}"), asked);
            }
            Some(code) => return End::Refused(format!("it answered gRPC status {code}")),
            None => return End::Refused("it does not speak gRPC".to_owned()),
        }
        message = message.slice(message.len().min(5)..);
    }
    let told = Exported::decode(message).ok();
    let partial = told.and_then(|told| told.partial_success);
    partial.map_or(End::Taken(0, String::new()), |partial| {
        let rejected = u64::try_from(partial.rejected).unwrap_or(0);
        End::Taken(
            rejected,
            format!("{rejected} were rejected: {}", partial.error_message),
        )
    })
}

/// What an error's body says, as far as people can read it.
fn words(body: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(body);
    let text: String = text
        .chars()
        .filter(|letter| !letter.is_control())
        .take(SHOWN)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use protocol::otlp::PartialSuccess;

    use super::*;

    fn answer(status: u16, grpc: Option<&str>, body: &[u8]) -> Answer {
        let trailers = grpc.map(|code| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().expect("a header value"));
            trailers
        });
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body),
            trailers,
        }
    }

    #[test]
    fn what_can_help_is_tried_again_and_nothing_else() {
        let asked = Some(Duration::from_secs(7));
        for (status, grpc, again) in [
            (200, None, None),
            (202, None, None),
            (429, None, Some(true)),
            (503, None, Some(true)),
            (400, None, Some(false)),
            (401, None, Some(false)),
            (500, None, Some(false)),
            (200, Some("0"), None),
            (200, Some("14"), Some(true)),
            (200, Some("8"), Some(true)),
            (200, Some("16"), Some(false)),
            (503, Some("0"), Some(true)),
        ] {
            let via = grpc.map_or(Via::Http, |_| Via::Grpc);
            let found = match judge(&answer(status, grpc, b""), via, asked) {
                End::Taken(rejected, _) => {
                    assert_eq!(rejected, 0);
                    None
                }
                End::Refused(_) => Some(false),
                End::Later(_, wait) => {
                    assert_eq!(wait, asked, "the collector is obeyed");
                    Some(true)
                }
            };
            assert_eq!(found, again, "{status} {grpc:?}");
        }
    }

    #[test]
    fn what_is_taken_in_part_is_counted_in_part() {
        let told = Exported {
            partial_success: Some(PartialSuccess {
                rejected: 3,
                error_message: "too old".to_owned(),
            }),
        };
        let plain = Bytes::from(told.encode_to_vec());
        let packed = envelope(&plain);
        for (via, grpc, body) in [(Via::Http, None, &plain), (Via::Grpc, Some("0"), &packed)] {
            let end = judge(&answer(200, grpc, body), via, None);
            let why = "3 were rejected: too old".to_owned();
            assert_eq!(end, End::Taken(3, why));
        }
    }
}
