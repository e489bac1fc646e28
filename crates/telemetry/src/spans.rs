//! Which requests are recorded as spans, and their way to whoever sends those.

use std::sync::Arc;

use protocol::resource::OtlpSpec;
use tokio::sync::mpsc;

use crate::metrics::{Counter, Family, Registry};
use crate::{Record, TraceContext};

/// The near end: chooses, and hands over without ever waiting.
#[derive(Debug)]
pub struct Spans {
    share: f64,
    follow_parent: bool,
    queue: mpsc::Sender<Arc<Record>>,
    lost: Counter,
}

/// The far end.
#[derive(Debug)]
pub struct Recorded(mpsc::Receiver<Arc<Record>>);

/// What became of spans and points of metrics.
#[derive(Debug, Clone)]
pub struct Fates(Family<[(&'static str, &'static str); 2], Counter>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Sent,
    /// There was no room for it.
    QueueFull,
    /// The collector does not want it.
    Refused,
    /// The collector did not answer, or was too busy, as often as it was asked.
    Unreachable,
}

impl Fates {
    pub fn register(registry: &Registry) -> Self {
        let family = Family::default();
        registry.register(
            "kapok_telemetry_exported_total",
            "Spans and points of metrics by what became of them: sent, queue_full, refused, unreachable",
            family.clone(),
        );
        Self(family)
    }

    /// `signal` is `traces` or `metrics`.
    pub fn of(&self, signal: &'static str, fate: Fate) -> Counter {
        let name = match fate {
            Fate::Sent => "sent",
            Fate::QueueFull => "queue_full",
            Fate::Refused => "refused",
            Fate::Unreachable => "unreachable",
        };
        self.0
            .get_or_create_owned(&[("signal", signal), ("fate", name)])
    }
}

impl Spans {
    pub fn new(spec: &OtlpSpec, fates: &Fates) -> (Self, Recorded) {
        let (queue, recorded) = mpsc::channel(spec.queue_max);
        let spans = Self {
            share: spec.sample.0,
            follow_parent: spec.follow_parent,
            queue,
            lost: fates.of("traces", Fate::QueueFull),
        };
        (spans, Recorded(recorded))
    }

    /// Decides whether this trace is recorded, for us and for all that are asked in its course.
    pub fn choose(&self, context: &mut TraceContext) {
        if !(self.follow_parent && context.inherited()) {
            context.sample(self.share);
        }
    }

    /// What no queue has room for is counted and gone.
    pub fn push(&self, record: &Arc<Record>) {
        if self.queue.try_send(Arc::clone(record)).is_err() {
            self.lost.add(record.spans());
        }
    }
}

impl Recorded {
    /// Adds what there is to `batch`, at most up to `max`; waits for the first. False if no more will come. Cancel-safe.
    pub async fn more(&mut self, batch: &mut Vec<Arc<Record>>, max: usize) -> bool {
        let room = max.saturating_sub(batch.len());
        room == 0 || self.0.recv_many(batch, room).await > 0
    }

    /// Adds what there is now, at most up to `max`.
    pub fn rest(&mut self, batch: &mut Vec<Arc<Record>>, max: usize) {
        while batch.len() < max
            && let Ok(record) = self.0.try_recv()
        {
            batch.push(record);
        }
    }
}
