//! Spans and metrics on their way to a collector, in OpenTelemetry's protocol.
//!
//! Requests hand their records over and never wait: a full queue, a slow collector or none costs spans, which are counted.
//! Two tasks send, one for spans and one for metrics, so that neither waits for the other; both send what there is before
//! the node ends.

mod collector;

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, TaskKind, Tasks};
use bytes::Bytes;
use prost::Message as _;
use protocol::resource::OtlpSpec;
use telemetry::metrics::Registry;
use telemetry::otlp::{Source, points};
use telemetry::spans::{Fates, Recorded, Spans};
use telemetry::{Record, TraceContext};

use crate::Error;
use collector::{Collector, Signal};

/// Requests that are sent together: OpenTelemetry's SDKs take as many spans.
const BATCH_MAX: usize = 512;

/// How long the first of them waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// What is to be sent, until the node serves.
#[derive(Debug)]
pub(crate) struct Export {
    collector: Arc<Collector>,
    source: Source,
    registry: Registry,
    clock: Clock,
    tasks: Tasks,
    /// None if no spans are sent.
    recorded: Option<Recorded>,
    /// How often metrics are sent; none if they are not.
    interval: Option<Duration>,
}

impl Export {
    /// None if there is nowhere to send to.
    pub(crate) fn new(
        spec: &OtlpSpec,
        version: &str,
        registry: &Registry,
        (clock, tasks): (&Clock, &Tasks),
    ) -> Result<(Option<Self>, Option<Spans>), Error> {
        // Registered in any case: that nothing is lost is told too.
        let fates = Fates::register(registry);
        let Some(endpoint) = &spec.endpoint else {
            return Ok((None, None));
        };
        let collector = Collector::new(spec, endpoint, fates.clone(), (clock, tasks))?;
        let (spans, recorded) = spec
            .traces
            .then(|| Spans::new(spec, &fates))
            .map_or((None, None), |(near, far)| (Some(near), Some(far)));
        let instance = TraceContext::follow(None).to_string();
        let export = Self {
            collector: Arc::new(collector),
            source: Source::new(spec, version, (&instance, clock.wall())),
            registry: registry.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            recorded,
            interval: spec
                .metrics
                .then(|| Duration::from_secs(spec.interval_seconds)),
        };
        Ok((Some(export), spans))
    }

    /// Starts to send, until the node stops.
    pub(crate) fn start(self) {
        let tasks = self.tasks.clone();
        if let Some(recorded) = self.recorded {
            let sender = Sender {
                collector: Arc::clone(&self.collector),
                source: self.source.clone(),
                tasks: tasks.clone(),
            };
            tasks.spawn(TaskKind::Export, "spans", async move {
                sender.spans(recorded).await;
                Ok(())
            });
        }
        if let Some(interval) = self.interval {
            let (registry, clock) = (self.registry, self.clock);
            let sender = Sender {
                collector: self.collector,
                source: self.source,
                tasks: tasks.clone(),
            };
            tasks.spawn(TaskKind::Export, "metrics", async move {
                sender.metrics(interval, &registry, &clock).await;
                Ok(())
            });
        }
    }
}

#[derive(Debug)]
struct Sender {
    collector: Arc<Collector>,
    source: Source,
    tasks: Tasks,
}

impl Sender {
    async fn spans(&self, mut recorded: Recorded) {
        let mut batch: Vec<Arc<Record>> = Vec::new();
        loop {
            tokio::select! {
                more = recorded.more(&mut batch, BATCH_MAX) => if !more {
                    break;
                },
                () = self.tasks.stopped() => break,
            }
            let gathered = async {
                while batch.len() < BATCH_MAX && recorded.more(&mut batch, BATCH_MAX).await {}
            };
            tokio::select! {
                () = gathered => {}
                () = tokio::time::sleep(BATCH_WAIT) => {}
                () = self.tasks.stopped() => {}
            }
            self.send_spans(&mut batch).await;
        }
        loop {
            recorded.rest(&mut batch, BATCH_MAX);
            if batch.is_empty() {
                return;
            }
            self.send_spans(&mut batch).await;
        }
    }

    async fn send_spans(&self, batch: &mut Vec<Arc<Record>>) {
        let count = batch.iter().map(|record| record.spans()).sum();
        let export = self.source.traces(batch.iter().map(|record| &**record));
        batch.clear();
        let body = Bytes::from(export.encode_to_vec());
        self.collector.send(Signal::Traces, body, count).await;
    }

    async fn metrics(&self, interval: Duration, registry: &Registry, clock: &Clock) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.tasks.stopped() => {}
            }
            let export = self.source.metrics(&registry.encode(), clock.wall());
            let body = Bytes::from(export.encode_to_vec());
            let count = points(&export);
            self.collector.send(Signal::Metrics, body, count).await;
            if self.tasks.stopping() {
                return;
            }
        }
    }
}
