use std::time::{Duration, Instant};

/// A request's number, in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// What the batcher knows of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Items along the batch dimension; 0 for a model without one, whose requests run alone.
    pub rows: usize,
    /// Only requests of one class share a batch.
    pub class: u64,
    /// 1 is the most urgent; 0, and what the model does not have, means the model's default.
    pub priority: u64,
    /// The caller's own bound on the time in the queue; the model's policy says whether it counts. With a latency target
    /// it takes the target's place for this request: who can wait longer lets others pass.
    pub timeout: Option<Duration>,
    /// After this nobody waits for the answer.
    pub deadline: Instant,
    /// The one lane that may run it.
    pub lane: Option<usize>,
}
