//! How long a batch of so many rows takes, learned from the batches that ran.

use std::collections::BTreeMap;
use std::time::Duration;

/// Weight of a new observation of one size: about the last 16 count.
const SIZE_WEIGHT: f64 = 1.0 / 16.0;

/// What older observations keep in the line through all sizes: about the last 200 count.
const LINE_KEEP: f64 = 0.995;

/// A size with fewer observations is judged by the line through all of them.
const OBSERVED_MIN: u32 = 3;

/// Sizes up to this are kept apart; larger ones share a place, eight to the power of two. So a few dozen places are all.
const EXACT_MAX: usize = 16;

/// An estimate that is exceeded by few batches: this many mean deviations above the mean.
const DEVIATIONS: f64 = 2.5;

#[derive(Debug, Clone, Default)]
pub struct Latency {
    sizes: BTreeMap<usize, Size>,
    line: Line,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    seen: u32,
    mean: f64,
    /// Mean distance from the mean.
    deviation: f64,
}

/// Decayed sums of a least-squares line: seconds over rows.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    weight: f64,
    rows: f64,
    rows_squared: f64,
    seconds: f64,
    product: f64,
    deviation: f64,
}

impl Latency {
    pub fn observe(&mut self, rows: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        let size = self.sizes.entry(place(rows)).or_default();
        size.seen = size.seen.saturating_add(1);
        // A plain mean first, so that the first observation does not weigh more than the others.
        let weight = SIZE_WEIGHT.max(1.0 / f64::from(size.seen));
        let distance = (seconds - size.mean).abs();
        size.mean += weight * (seconds - size.mean);
        if size.seen > 1 {
            size.deviation += weight * (distance - size.deviation);
        }
        self.line.observe(rows as f64, seconds);
    }

    /// Seconds that a batch of this size takes on average; 0 as long as nothing has run.
    pub(crate) fn mean(&self, rows: usize) -> f64 {
        match self.size(rows) {
            Some(size) => size.mean,
            None => self.line.at(rows as f64),
        }
    }

    /// What a batch of this size stays within, but for a few in a hundred.
    pub fn estimate(&self, rows: usize) -> Duration {
        let seconds = match self.size(rows) {
            Some(size) => size.mean + DEVIATIONS * size.deviation,
            None => self.line.at(rows as f64) + DEVIATIONS * self.line.deviation,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }

    /// The smallest of `buckets` that holds `rows` and is measured to be cheaper than `rows` themselves.
    pub(crate) fn padded(&self, rows: usize, buckets: &[usize]) -> usize {
        let above = buckets.iter().copied().find(|bucket| *bucket >= rows);
        match above {
            Some(bucket)
                if bucket > rows
                    && self.size(rows).is_some()
                    && self.size(bucket).is_some()
                    && self.mean(bucket) < self.mean(rows) =>
            {
                bucket
            }
            _ => rows,
        }
    }

    fn size(&self, rows: usize) -> Option<&Size> {
        let size = self.sizes.get(&place(rows))?;
        (size.seen >= OBSERVED_MIN).then_some(size)
    }
}

/// Rounded up, so that a shared place never promises too much.
pub(crate) fn place(rows: usize) -> usize {
    if rows <= EXACT_MAX {
        return rows;
    }
    let step = (rows.next_power_of_two() / EXACT_MAX).max(1);
    rows.div_ceil(step).saturating_mul(step)
}

impl Line {
    fn observe(&mut self, rows: f64, seconds: f64) {
        let distance = (seconds - self.at(rows)).abs();
        if self.weight > 1.0 {
            self.deviation += SIZE_WEIGHT * (distance - self.deviation);
        }
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.rows_squared, rows * rows),
            (&mut self.seconds, seconds),
            (&mut self.product, rows * seconds),
        ] {
            *sum = *sum * LINE_KEEP + value;
        }
    }

    /// Never falls with the size, and never below zero: then the mean says more than the slope.
    fn at(&self, rows: f64) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let mean_rows = self.rows / self.weight;
        let mean = self.seconds / self.weight;
        let variance = self.rows_squared / self.weight - mean_rows * mean_rows;
        let covariance = self.product / self.weight - mean_rows * mean;
        let steepest = mean / mean_rows.max(1.0);
        let slope = if variance > 1e-9 {
            (covariance / variance).clamp(0.0, steepest)
        } else {
            // One size only: what lies between "as long" and "in proportion" is unknown.
            steepest / 2.0
        };
        (mean + slope * (rows - mean_rows)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(value: f64) -> Duration {
        Duration::from_secs_f64(value / 1e3)
    }

    #[test]
    fn sizes_never_run_are_judged_by_those_that_did() {
        let mut latency = Latency::default();
        for _ in 0..50 {
            for rows in [1, 2, 4, 8] {
                latency.observe(rows, millis(2.0 + 0.5 * rows as f64));
            }
        }
        for (rows, expected) in [(1, 2.5), (6, 5.0), (16, 10.0), (32, 18.0)] {
            let found = latency.estimate(rows).as_secs_f64() * 1e3;
            assert!((found - expected).abs() < 0.3, "{rows}: {found}");
        }
    }

    #[test]
    fn what_is_learned_follows_the_machine_and_stays_small() {
        let mut latency = Latency::default();
        for rows in 1..5000 {
            latency.observe(rows, millis(1.0));
        }
        assert!(latency.sizes.len() < 100, "{}", latency.sizes.len());
        for _ in 0..100 {
            latency.observe(4, millis(9.0));
        }
        assert!(latency.estimate(4) > millis(8.5));
    }

    #[test]
    fn a_batch_is_filled_up_only_where_that_was_seen_to_be_cheaper() {
        let mut latency = Latency::default();
        let buckets = [4, 8];
        assert_eq!(latency.padded(3, &buckets), 3);
        for _ in 0..OBSERVED_MIN {
            latency.observe(3, millis(5.0));
            latency.observe(4, millis(4.0));
            latency.observe(5, millis(5.0));
            latency.observe(8, millis(8.0));
        }
        for (rows, expected) in [(3, 4), (4, 4), (5, 5), (9, 9)] {
            assert_eq!(latency.padded(rows, &buckets), expected);
        }
    }
}
