//! What is known of how busy a member is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Reports older than this say nothing any more; our own counts go on. Ten scrapes at the usual second.
const STALE_MS: u32 = 10_000;

/// In which an observed latency loses 63 % of its weight. linkerd and finagle use the same ten seconds.
const LATENCY_DECAY_MS: f32 = 10_000.0;

/// What a failure counts for at least and at most: slower than any cached answer, quicker than any time-out.
const FAILURE_US_MIN: f32 = 100_000.0;
const FAILURE_US_MAX: f32 = 60_000_000.0;

/// A server's live figures. Written by whoever sends and scrapes, read by policies; no lock, and a reader that meets a
/// writer half-way sees figures of two moments, which load is anyway.
///
/// Times are milliseconds since any fixed moment; they wrap after 49 days, and only differences are looked at.
#[derive(Debug, Default)]
pub struct Meter {
    in_flight: AtomicU32,
    /// Peak EWMA: microseconds as an `f32`, then the moment of the last change. 0 is nothing yet.
    latency: AtomicU64,
    /// One more than what was said, each; 0 is not said.
    queued: AtomicU32,
    running: AtomicU32,
    gpu_free_bytes: AtomicU64,
    /// The bits of an `f32`; NaN is not said.
    kv_use: AtomicU32,
    /// Our own requests then.
    in_flight_then: AtomicU32,
    /// When the five above were said; 0 is never.
    reported_ms: AtomicU32,
}

/// What a server says of itself. What its kind does not tell is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Requests that wait.
    pub queued: Option<u32>,
    /// Requests that run.
    pub running: Option<u32>,
    /// Share of the key-value cache in use, 0 to 1.
    pub kv_use: Option<f32>,
    /// Free GPU memory, over all its GPUs.
    pub gpu_free_bytes: Option<u64>,
}

/// What is known of one server at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Our own requests there.
    pub in_flight: u32,
    /// Until the first byte of an answer: peaks count at once and are forgotten slowly.
    pub latency_us: Option<f32>,
    /// Absent when it never reported, or too long ago.
    pub reported: Option<Reported>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reported {
    pub report: Report,
    pub age_ms: u32,
    /// Our own requests there when it was said.
    pub in_flight_then: u32,
}

impl Load {
    /// Requests there now, as far as anybody can know: what it reported, corrected by what we sent and got back since.
    /// Without the correction everybody who reads the same report sends to the same server until the next one.
    pub fn depth(&self) -> f32 {
        let ours = self.in_flight as f32;
        let Some(reported) = &self.reported else {
            return ours;
        };
        let Report {
            queued, running, ..
        } = reported.report;
        if queued.is_none() && running.is_none() {
            return ours;
        }
        let said = queued.unwrap_or(0) as f32 + running.unwrap_or(0) as f32;
        let since = ours - reported.in_flight_then as f32;
        (said + since).max(ours)
    }

    /// What one more request would wait, in microseconds; nothing until its latency was seen once.
    pub fn expected_us(&self) -> Option<f32> {
        Some(self.latency_us? * (self.depth() + 1.0))
    }
}

impl Meter {
    /// A request is on its way; [`Meter::leave`] must follow when its answer ends, however it ends.
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// An answer began after so long. Of two at once one may be lost.
    pub fn answered(&self, took_us: f32, now_ms: u32) {
        let took = took_us.max(1.0);
        let before = decayed(self.latency.load(Ordering::Relaxed), now_ms);
        let latency = before.map_or(took, |(latency, kept)| {
            if took > latency {
                took
            } else {
                latency * kept + took * (1.0 - kept)
            }
        });
        self.set_latency(latency, now_ms);
    }

    /// There was no answer, or one that says that the server cannot. Who fails quickly is not quick: each failure
    /// doubles what is expected, so that fewer and fewer come to see it, until it is forgotten like any peak.
    pub fn failed(&self, took_us: f32, now_ms: u32) {
        let before = decayed(self.latency.load(Ordering::Relaxed), now_ms);
        let doubled = before.map_or(FAILURE_US_MIN, |(latency, _)| latency * 2.0);
        let latency = took_us.max(doubled).clamp(FAILURE_US_MIN, FAILURE_US_MAX);
        self.set_latency(latency, now_ms);
    }

    fn set_latency(&self, latency_us: f32, now_ms: u32) {
        let packed = u64::from(latency_us.to_bits()) << 32 | u64::from(now_ms);
        self.latency.store(packed, Ordering::Relaxed);
    }

    pub fn report(&self, report: &Report, now_ms: u32) {
        let write = |cell: &AtomicU32, value: Option<u32>| {
            let more = value.map_or(0, |value| value.saturating_add(1));
            cell.store(more, Ordering::Relaxed);
        };
        write(&self.queued, report.queued);
        write(&self.running, report.running);
        write(&self.in_flight_then, Some(self.in_flight()));
        let bytes = report.gpu_free_bytes;
        let bytes = bytes.map_or(0, |bytes| bytes.saturating_add(1));
        self.gpu_free_bytes.store(bytes, Ordering::Relaxed);
        let kv_use = report
            .kv_use
            .map_or(f32::NAN, |share| share.clamp(0.0, 1.0));
        self.kv_use.store(kv_use.to_bits(), Ordering::Relaxed);
        // 0 is "never"; a millisecond more or less is nothing.
        self.reported_ms.store(now_ms.max(1), Ordering::Release);
    }

    /// What it said is not to be believed any more.
    pub fn forget_report(&self) {
        self.reported_ms.store(0, Ordering::Relaxed);
    }

    pub fn read(&self, now_ms: u32) -> Load {
        let latency = self.latency.load(Ordering::Relaxed);
        Load {
            in_flight: self.in_flight(),
            latency_us: decayed(latency, now_ms).map(|(latency, _)| latency),
            reported: self.reported(now_ms),
        }
    }

    fn reported(&self, now_ms: u32) -> Option<Reported> {
        let at_ms = self.reported_ms.load(Ordering::Acquire);
        let age_ms = now_ms.wrapping_sub(at_ms);
        if at_ms == 0 || age_ms > STALE_MS {
            return None;
        }
        let read = |cell: &AtomicU32| cell.load(Ordering::Relaxed).checked_sub(1);
        let kv_use = f32::from_bits(self.kv_use.load(Ordering::Relaxed));
        Some(Reported {
            report: Report {
                queued: read(&self.queued),
                running: read(&self.running),
                kv_use: (!kv_use.is_nan()).then_some(kv_use),
                gpu_free_bytes: self.gpu_free_bytes.load(Ordering::Relaxed).checked_sub(1),
            },
            age_ms,
            in_flight_then: read(&self.in_flight_then).unwrap_or(0),
        })
    }
}

/// The latency, and how much of it is kept now.
fn decayed(packed: u64, now_ms: u32) -> Option<(f32, f32)> {
    if packed == 0 {
        return None;
    }
    let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    let latency = f32::from_bits(half(packed >> 32));
    let age_ms = now_ms.wrapping_sub(half(packed));
    Some((latency, (-(age_ms as f32) / LATENCY_DECAY_MS).exp()))
}

#[cfg(test)]
mod tests;
