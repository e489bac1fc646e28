use std::time::Duration;

use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::oip::proto::model_queue_policy::TimeoutAction;
use protocol::oip::proto::{ModelConfig, ModelDynamicBatching, ModelQueuePolicy};

/// More levels than anybody orders by hand; each costs some words of memory.
const LEVELS_MAX: u64 = 1 << 10;

/// How one model's requests are queued and batched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Rows of the largest batch; 1 runs every request alone.
    pub rows_max: usize,
    /// How long the oldest request waits for a fuller batch while a lane is free.
    pub delay: Duration,
    /// Batch sizes that are not waited beyond, ascending. The largest is never exceeded by adding a request.
    pub preferred: Vec<usize>,
    /// Answers leave in the order in which their requests came.
    pub ordered: bool,
    /// One per priority, the most urgent first; never empty.
    pub levels: Vec<Policy>,
    /// The level of a request that names none.
    pub level_default: usize,
    /// What 99 of 100 requests should take. Present, it replaces `delay` and `preferred`: the batcher learns them.
    pub target: Option<Duration>,
    /// Batch sizes known to be warm, ascending: smaller batches may be filled up to one of them.
    pub buckets: Vec<usize>,
    /// Requests waiting, of all levels together; one more is refused.
    pub waiting_max: usize,
    /// Calls that run at the same time.
    pub lanes: usize,
}

/// How one priority level queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Time in the queue after which `action` happens.
    pub timeout: Option<Duration>,
    pub action: OnTimeout,
    /// Whether a request may name a shorter timeout.
    pub may_override: bool,
    /// Requests waiting on this level; none leaves it to the whole queue's bound.
    pub waiting_max: Option<usize>,
}

/// What happens to a request that waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimeout {
    #[default]
    Reject,
    /// It runs when nothing else of its level waits.
    Delay,
}

impl Settings {
    /// Requests run one by one, in order of arrival.
    pub fn single(lanes: usize, waiting_max: usize) -> Self {
        Self {
            rows_max: 1,
            delay: Duration::ZERO,
            preferred: Vec::new(),
            ordered: false,
            levels: vec![Policy::default()],
            level_default: 0,
            target: None,
            buckets: Vec::new(),
            waiting_max,
            lanes,
        }
    }

    /// What a completed configuration says. Without `dynamic_batching` and without a target, requests run one by one.
    pub fn of(config: &ModelConfig, target: Option<Duration>, base: Self) -> Self {
        let rows_max = usize::try_from(config.max_batch_size).unwrap_or(0).max(1);
        let dynamic = match &config.scheduling_choice {
            Some(SchedulingChoice::DynamicBatching(dynamic)) => Some(dynamic),
            _ => None,
        };
        let Some(dynamic) = dynamic else {
            return Self {
                rows_max: if target.is_some() { rows_max } else { 1 },
                target,
                ..base
            };
        };
        let mut preferred: Vec<usize> = dynamic
            .preferred_batch_size
            .iter()
            .filter_map(|size| usize::try_from(*size).ok())
            .collect();
        preferred.sort_unstable();
        let level_default = usize::try_from(dynamic.default_priority_level).unwrap_or(0);
        let levels = levels(dynamic);
        Self {
            rows_max,
            delay: Duration::from_micros(dynamic.max_queue_delay_microseconds),
            preferred,
            ordered: dynamic.preserve_ordering,
            level_default: level_default.clamp(1, levels.len()) - 1,
            levels,
            target,
            ..base
        }
    }

    /// The level of a request that asks for this priority.
    pub(crate) fn level(&self, priority: u64) -> usize {
        usize::try_from(priority)
            .ok()
            .filter(|priority| (1..=self.levels.len()).contains(priority))
            .map_or(self.level_default, |priority| priority - 1)
    }
}

fn levels(dynamic: &ModelDynamicBatching) -> Vec<Policy> {
    let default = dynamic.default_queue_policy.as_ref();
    (1..=dynamic.priority_levels.clamp(1, LEVELS_MAX))
        .map(|level| {
            let own = dynamic.priority_queue_policy.get(&level);
            own.or(default).map(Policy::of).unwrap_or_default()
        })
        .collect()
}

impl Policy {
    fn of(policy: &ModelQueuePolicy) -> Self {
        let micros = policy.default_timeout_microseconds;
        let waiting_max = usize::try_from(policy.max_queue_size).unwrap_or(usize::MAX);
        Self {
            timeout: (micros > 0).then(|| Duration::from_micros(micros)),
            action: match policy.timeout_action() {
                TimeoutAction::Reject => OnTimeout::Reject,
                TimeoutAction::Delay => OnTimeout::Delay,
            },
            may_override: policy.allow_timeout_override,
            waiting_max: (waiting_max > 0).then_some(waiting_max),
        }
    }

    /// Time in the queue that a request is given; it can only ask for less.
    pub(crate) fn allowed(&self, asked: Option<Duration>) -> Option<Duration> {
        let asked = asked.filter(|asked| self.may_override && !asked.is_zero());
        match (self.timeout, asked) {
            (Some(timeout), Some(asked)) => Some(timeout.min(asked)),
            (timeout, asked) => timeout.or(asked),
        }
    }
}
