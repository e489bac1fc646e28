use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What an upstream said of itself on its metrics page. Written by the one task that asks, read by whoever chooses: single
/// numbers, so a reader between two writes sees parts of both, which is no worse than a look a moment earlier.
#[derive(Debug)]
pub(crate) struct Load {
    /// Whether it was said lately enough to be believed; the task that asks takes it back.
    fresh: AtomicBool,
    queued: AtomicU32,
    running: AtomicU32,
    /// In millionths.
    kv_use: AtomicU32,
    gpu_free_bytes: AtomicU64,
}

/// One look at an upstream's metrics page. What a page does not tell is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Report {
    /// Requests that wait.
    pub(crate) queued: Option<u32>,
    /// Requests that run.
    pub(crate) running: Option<u32>,
    /// Share of the key-value cache in use, 0 to 1.
    pub(crate) kv_use: Option<f32>,
    /// Free GPU memory, over all its GPUs.
    pub(crate) gpu_free_bytes: Option<u64>,
}

/// No page tells that much.
const NOTHING: u32 = u32::MAX;
const NO_BYTES: u64 = u64::MAX;
const MILLION: f32 = 1e6;

impl Default for Load {
    fn default() -> Self {
        Self {
            fresh: AtomicBool::new(false),
            queued: AtomicU32::new(NOTHING),
            running: AtomicU32::new(NOTHING),
            kv_use: AtomicU32::new(NOTHING),
            gpu_free_bytes: AtomicU64::new(NO_BYTES),
        }
    }
}

impl Load {
    /// The last report; none before the first, and once it is stale.
    pub(crate) fn report(&self) -> Option<Report> {
        if !self.fresh.load(Ordering::Acquire) {
            return None;
        }
        let number = |cell: &AtomicU32| {
            let value = cell.load(Ordering::Relaxed);
            (value != NOTHING).then_some(value)
        };
        let bytes = self.gpu_free_bytes.load(Ordering::Relaxed);
        Some(Report {
            queued: number(&self.queued),
            running: number(&self.running),
            #[expect(clippy::cast_precision_loss, reason = "at most a million")]
            kv_use: number(&self.kv_use).map(|millionths| millionths as f32 / MILLION),
            gpu_free_bytes: (bytes != NO_BYTES).then_some(bytes),
        })
    }

    pub(crate) fn note(&self, report: &Report) {
        let number = |value: Option<u32>| value.map_or(NOTHING, |value| value.min(NOTHING - 1));
        self.queued.store(number(report.queued), Ordering::Relaxed);
        self.running
            .store(number(report.running), Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0 to a million"
        )]
        let kv_use = report
            .kv_use
            .map(|share| (share.clamp(0.0, 1.0) * MILLION) as u32);
        self.kv_use.store(number(kv_use), Ordering::Relaxed);
        self.gpu_free_bytes
            .store(report.gpu_free_bytes.unwrap_or(NO_BYTES), Ordering::Relaxed);
        self.fresh.store(true, Ordering::Release);
    }

    /// What was said last is too old to be believed.
    pub(crate) fn forget(&self) {
        self.fresh.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_until_it_is_stale() {
        let load = Load::default();
        assert_eq!(load.report(), None);
        for report in [
            Report::default(),
            Report {
                queued: Some(7),
                running: Some(0),
                kv_use: Some(0.5),
                gpu_free_bytes: Some(24 << 30),
            },
        ] {
            load.note(&report);
            assert_eq!(load.report(), Some(report));
        }
        load.forget();
        assert_eq!(load.report(), None);
    }
}
