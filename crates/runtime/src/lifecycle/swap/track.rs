use std::array;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{InferRequest, Tensor};

use protocol::sidecar::Swap;

use super::Ended;

/// Buckets of an eighth of an octave, so a time is known within 9 %: from 1 µs (2^10 ns) to a minute and more.
const STEPS: usize = 8;
const FIRST: u32 = 10;
const OCTAVES: usize = 27;

/// A running model's past fades: at so many calls, what was counted before counts half.
const FADE_AT: u64 = 8192;

/// Differences below this are the machine's, not the model's.
const NOISE: Duration = Duration::from_millis(1);

/// Times are looked at once in so many calls; it costs as much as the calls between.
const LOOK_EVERY: u64 = 16;

/// How a model has done, for whoever replaces it, and whether it does well enough itself.
pub(crate) struct Track {
    times: [AtomicU64; STEPS * OCTAVES],
    calls: AtomicU64,
    failures: AtomicU64,
    watched: AtomicBool,
    watch: Mutex<Option<Watch>>,
    policy: Swap,
    recent: Mutex<Recent>,
}

#[derive(Debug)]
struct Watch {
    policy: Swap,
    /// Upper bound of the 99th percentile before, if enough calls were seen.
    p99: Option<Duration>,
    /// Share of calls that failed before.
    failing: f64,
}

#[derive(Debug, Default)]
struct Recent {
    requests: VecDeque<InferRequest>,
    bytes: usize,
}

impl Track {
    pub(crate) fn new(policy: Swap) -> Self {
        Self {
            times: array::from_fn(|_| AtomicU64::new(0)),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            watch: Mutex::default(),
            policy,
            recent: Mutex::default(),
        }
    }

    /// Keeps a copy of a request for models that compare their versions; buffers of clients and pools are let go.
    pub(crate) fn keep(&self, request: &InferRequest) {
        self.keep_inputs(&request.model, &request.inputs);
    }

    /// As [`Self::keep`], for a call of a model that takes text: its tokens.
    pub(crate) fn keep_inputs(&self, model: &str, inputs: &[Tensor]) {
        if self.policy.compare == 0 {
            return;
        }
        let size = |tensor: &Tensor| tensor.data.len();
        let bytes: usize = inputs.iter().map(size).sum();
        if bytes > self.policy.compare_bytes_max {
            return;
        }
        let copy = |tensor: &Tensor| Tensor {
            data: Bytes::copy_from_slice(&tensor.data),
            ..tensor.clone()
        };
        let kept = InferRequest {
            model: model.to_owned(),
            inputs: inputs.iter().map(copy).collect(),
            ..InferRequest::default()
        };
        let mut recent = self.recent.lock();
        recent.bytes += bytes;
        recent.requests.push_back(kept);
        while recent.requests.len() > self.policy.compare
            || recent.bytes > self.policy.compare_bytes_max
        {
            let Some(oldest) = recent.requests.pop_front() else {
                break;
            };
            recent.bytes -= oldest.inputs.iter().map(size).sum::<usize>();
        }
    }

    /// The last requests, oldest first.
    pub(super) fn recent(&self, count: usize) -> Vec<InferRequest> {
        let recent = self.recent.lock();
        let skipped = recent.requests.len().saturating_sub(count);
        recent.requests.iter().skip(skipped).cloned().collect()
    }

    /// A new version may be replaced before it has seen as many requests as the one before.
    pub(super) fn inherit(&self, before: &Self) {
        for request in before.recent(self.policy.compare) {
            self.keep(&request);
        }
    }

    /// From now on the model is measured against another's past.
    pub(super) fn watch(&self, before: &Self, policy: Swap) {
        let (calls, failures) = before.counts();
        let p99 = (calls >= policy.min_requests).then(|| before.p99().1);
        let failing = failures as f64 / calls.max(1) as f64;
        *self.watch.lock() = Some(Watch {
            policy,
            p99,
            failing,
        });
        self.watched.store(true, Ordering::Release);
    }

    /// The model has lasted: nobody looks any more.
    pub(crate) fn trust(&self) {
        self.watched.store(false, Ordering::Release);
    }

    /// Books a call; what speaks against the model, said once.
    pub(super) fn ended(&self, outcome: Ended) -> Option<String> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match outcome {
            Ended::Answered(time) => {
                self.times[bucket(time)].fetch_add(1, Ordering::Relaxed);
            }
            Ended::Failed => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !self.watched.load(Ordering::Acquire) {
            if calls >= FADE_AT {
                self.fade(calls);
            }
            return None;
        }
        let look = matches!(outcome, Ended::Failed) || calls.is_multiple_of(LOOK_EVERY);
        let why = look.then(|| self.verdict())??;
        // Of two calls that find the same, one says so.
        self.watched.swap(false, Ordering::AcqRel).then_some(why)
    }

    fn verdict(&self) -> Option<String> {
        let watch = self.watch.lock();
        let Watch {
            policy,
            p99,
            failing,
        } = watch.as_ref()?;
        let (calls, failures) = self.counts();
        let share = failures as f64 / calls.max(1) as f64;
        if calls >= policy.min_requests.div_ceil(5)
            && share > policy.max_error_rate
            && share > *failing
        {
            return Some(format!("{failures} of its first {calls} calls failed"));
        }
        let before = (*p99)?;
        if policy.max_p99_regression == 0.0 || calls - failures < policy.min_requests {
            return None;
        }
        let now = self.p99().0;
        let slower = now > before.mul_f64(policy.max_p99_regression) && now > before + NOISE;
        slower.then(|| {
            format!(
                "99 % of its calls take up to {:.1} ms, {:.1} ms before",
                now.as_secs_f64() * 1e3,
                before.as_secs_f64() * 1e3
            )
        })
    }

    fn counts(&self) -> (u64, u64) {
        let calls = self.calls.load(Ordering::Relaxed);
        (calls, self.failures.load(Ordering::Relaxed).min(calls))
    }

    /// Bounds of the 99th percentile: not below the first, not above the second.
    fn p99(&self) -> (Duration, Duration) {
        let counts: Vec<u64> = self
            .times
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let all: u64 = counts.iter().sum();
        let mut above = all / 100;
        let mut place = 0;
        for (index, count) in counts.iter().enumerate().rev() {
            place = index;
            if *count > above {
                break;
            }
            above -= count;
        }
        (bound(place), bound(place + 1))
    }

    /// Racing calls may be lost from the count; what is lost is a few in thousands.
    fn fade(&self, calls: u64) {
        let halved =
            self.calls
                .compare_exchange(calls, calls / 2, Ordering::Relaxed, Ordering::Relaxed);
        if halved.is_err() {
            return;
        }
        for count in self.times.iter().chain([&self.failures]) {
            count.store(count.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }
}

fn bucket(time: Duration) -> usize {
    let ns = u64::try_from(time.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1 << FIRST);
    let octave = ns.ilog2() - FIRST;
    // The three bits below the highest one.
    let step = (ns >> (octave + FIRST - STEPS.ilog2())) & (STEPS as u64 - 1);
    let index = octave as usize * STEPS + usize::try_from(step).unwrap_or(0);
    index.min(STEPS * OCTAVES - 1)
}

/// Where a bucket begins.
fn bound(bucket: usize) -> Duration {
    let (octave, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    let base = 1_u64 << (FIRST + u32::try_from(octave).unwrap_or(0));
    Duration::from_nanos(base + base / STEPS as u64 * step)
}

impl std::fmt::Debug for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (calls, failures) = self.counts();
        f.debug_struct("Track")
            .field("calls", &calls)
            .field("failures", &failures)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
