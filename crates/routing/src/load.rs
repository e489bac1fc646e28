//! What is known of how busy a member is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Reports older than this say nothing any more; our own counts go on. Ten scrapes at the usual second.
const STALE_MS: u32 = 10_000;

/// In which an observed latency loses 63 % of its weight. linkerd and finagle use the same ten seconds.
const LATENCY_DECAY_MS: f32 = 10_000.0;

/// A server's live counters. Written by whoever sends and scrapes, read by policies; no lock, and a reader that meets a
/// writer half-way sees figures of two moments, which load is anyway.
///
/// Times are milliseconds since any fixed moment; they wrap after 49 days, and only differences are looked at.
#[derive(Debug, Default)]
pub struct Meter {
    in_flight: AtomicU32,
    /// Peak EWMA: microseconds as an `f32`, then the moment of the last change. 0 is nothing yet.
    latency: AtomicU64,
    waiting: AtomicU32,
    running: AtomicU32,
    /// An `f32`.
    kv_used: AtomicU32,
    in_flight_then: AtomicU32,
    /// When the four above were said; 0 is never.
    reported_ms: AtomicU32,
    /// Free GPU memory in MiB, and one more; 0 is unknown.
    gpu_free: AtomicU32,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Requests in its queue.
    pub waiting: u32,
    /// Requests that it computes.
    pub running: u32,
    /// Share of its KV cache that is taken, 0 to 1.
    pub kv_used: f32,
    pub gpu_free_mb: Option<u32>,
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
        let said = reported.report.waiting as f32 + reported.report.running as f32;
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

    /// An answer began after so long. Also for a failure, with what it cost the caller: who refuses quickly must not
    /// look quick. Of two at once one may be lost.
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
        let packed = u64::from(latency.to_bits()) << 32 | u64::from(now_ms);
        self.latency.store(packed, Ordering::Relaxed);
    }

    pub fn report(&self, report: &Report, now_ms: u32) {
        self.waiting.store(report.waiting, Ordering::Relaxed);
        self.running.store(report.running, Ordering::Relaxed);
        let kv_used = report.kv_used.clamp(0.0, 1.0);
        self.kv_used.store(kv_used.to_bits(), Ordering::Relaxed);
        self.in_flight_then
            .store(self.in_flight(), Ordering::Relaxed);
        let gpu = report.gpu_free_mb.map_or(0, |free| free.saturating_add(1));
        self.gpu_free.store(gpu, Ordering::Relaxed);
        // 0 is "never"; a millisecond more or less is nothing.
        self.reported_ms.store(now_ms.max(1), Ordering::Release);
    }

    /// What was observed and reported is forgotten; requests on their way are not.
    pub fn forget(&self) {
        self.latency.store(0, Ordering::Relaxed);
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
        let read = |part: &AtomicU32| part.load(Ordering::Relaxed);
        Some(Reported {
            report: Report {
                waiting: read(&self.waiting),
                running: read(&self.running),
                kv_used: f32::from_bits(read(&self.kv_used)),
                gpu_free_mb: read(&self.gpu_free).checked_sub(1),
            },
            age_ms,
            in_flight_then: read(&self.in_flight_then),
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
