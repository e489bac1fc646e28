//! Whether batches pay: what a row costs in a batch of each size, learned from batches that ran while every lane was busy.
//!
//! Batches of a convolutional network fall out of the caches and can cost more than their requests one by one; those of a
//! transformer mostly cost less, up to some size. Both change with the machine, so sizes that are not used are tried now
//! and then, and the time that trials waste is bounded: see [`TRIAL_SHARE`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::latency::place;

/// Times a cost, what is worth another size: two measurements of one size differ by this much.
const CLEARLY: f64 = 1.05;

/// Weight of a new observation: about the last 16 count.
const WEIGHT: f64 = 1.0 / 16.0;

/// Observations of a size before it is no longer tried for its own sake.
const OBSERVED_MIN: u32 = 3;

/// Batches after which a size that was not among them is tried again.
const STALE: u64 = 64;

/// Batches after which a size that trials do not come back to is forgotten.
const FORGOTTEN: u64 = 1_024;

/// What is known of a size tried again counts as so many observations.
const STALE_SEEN: u32 = 2;

/// Batches before the first trial: fewer are no load, and nothing is gained by knowing what they are worth.
const BATCHES_MIN: u64 = 4;

/// Of the lanes' busy time, what trials may waste, one trial more at most. A sixty-fourth is lost among the few percent
/// that the choice of a size can be wrong by.
const TRIAL_SHARE: f64 = 1.0 / 64.0;

/// A row that took longer than so many times the usual met the machine's bad moment, and counts for no more.
const OUTLIER: f64 = 2.0;

/// Times what a size costs, or a part of it: so many observations in a row beyond that are no accident.
const CHANGED: f64 = 1.5;
const CHANGED_MIN: u32 = 4;

#[derive(Debug, Clone, Default)]
pub(crate) struct Worth {
    sizes: BTreeMap<usize, Cost>,
    /// Batches observed.
    batches: u64,
    /// Seconds that trials may waste.
    credit: f64,
    /// The size of the trial that runs; another would be started in ignorance of its cost.
    trying: Option<usize>,
    /// Sizes whose trial ran as another one (padded, or its requests one by one), and when.
    barren: BTreeMap<usize, u64>,
}

/// Seconds a row.
#[derive(Debug, Clone, Copy)]
struct Cost {
    seen: u32,
    mean: f64,
    last: u64,
    /// Observations since one that was about as expected.
    unlike: u32,
}

/// Rows of the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    /// Not the best that is known: run to learn.
    pub(crate) trial: bool,
}

impl Worth {
    /// How many rows to run together, where so many could be. A size is tried only where those who wait are exactly so
    /// many: anything less is no trial of it.
    pub(crate) fn choose(&self, rows: usize, fills: impl Fn(usize) -> bool) -> Size {
        let best = self.best(rows);
        let trial = self.doubtful((rows, best), fills);
        Size {
            rows: trial.unwrap_or(best),
            trial: trial.is_some(),
        }
    }

    /// A trial of so many rows has started.
    pub(crate) fn begin_trial(&mut self, rows: usize) {
        self.trying = Some(rows);
    }

    /// It has ended, learned from or not.
    pub(crate) fn end_trial(&mut self) {
        self.trying = None;
    }

    /// How long a batch took while every lane was busy.
    pub(crate) fn observe(&mut self, rows: usize, took: Duration, trial: bool) {
        let seconds = took.as_secs_f64();
        self.batches += 1;
        let (now, wasted) = (self.batches, self.wasted(rows, seconds, trial));
        // A quiet credit buys one trial, not many at once.
        self.credit = (self.credit + seconds * TRIAL_SHARE).min(seconds) - wasted;
        if let Some(tried) = self.trying.filter(|_| trial)
            && place(tried) != place(rows)
        {
            self.barren.insert(tried, now);
        }
        let per_row = seconds / rows as f64;
        let cost = self.sizes.entry(place(rows)).or_insert(Cost {
            seen: 0,
            mean: per_row,
            last: now,
            unlike: 0,
        });
        cost.observe(per_row, now);
        self.sizes
            .retain(|size, cost| size.is_power_of_two() || now - cost.last <= FORGOTTEN);
    }

    /// What a trial cost beyond what its rows would have otherwise. The machine's bad moment is not the trial's.
    fn wasted(&self, rows: usize, seconds: f64, trial: bool) -> f64 {
        let Some((_, best)) = self.cheapest(usize::MAX).filter(|_| trial) else {
            return 0.0;
        };
        let rows_seconds = |cost: f64| cost * rows as f64;
        let known = self.sizes.get(&place(rows)).map(|cost| cost.mean);
        let most = known.map_or(seconds, |known| rows_seconds(known) * OUTLIER);
        (seconds.min(most) - rows_seconds(best)).max(0.0)
    }

    /// All rows unless a smaller batch is clearly cheaper by the row.
    fn best(&self, rows: usize) -> usize {
        match (self.cheapest(rows), self.cost(rows)) {
            (Some((size, least)), Some(cost)) if least * CLEARLY < cost => size,
            _ => rows,
        }
    }

    /// The size that a row costs least in, up to `rows`.
    fn cheapest(&self, rows: usize) -> Option<(usize, f64)> {
        let known = self.sizes.range(..=rows);
        known
            .map(|(size, cost)| (*size, cost.mean))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// As observed; else between the next known sizes; above all of them, as in the largest. None below all of them.
    fn cost(&self, rows: usize) -> Option<f64> {
        let at = place(rows);
        let (below, cost) = self.sizes.range(..=at).next_back()?;
        match self.sizes.range(at..).next() {
            Some((above, dearer)) if above > below => {
                let share = (at - below) as f64 / (above - below) as f64;
                Some(cost.mean + share * (dearer.mean - cost.mean))
            }
            _ => Some(cost.mean),
        }
    }

    /// A power of two that little is known of, or nothing new, if a trial may be afforded.
    fn doubtful(
        &self,
        (rows, best): (usize, usize),
        fills: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.trying.is_some() || self.batches < BATCHES_MIN || self.credit <= 0.0 {
            return None;
        }
        let barren = |size: &usize| {
            let at = self.barren.get(size);
            at.is_some_and(|at| self.batches - at <= STALE)
        };
        let sizes = std::iter::successors(Some(1), |size: &usize| size.checked_mul(2))
            .take_while(|size| *size <= rows)
            .filter(|size| *size != best && !barren(size) && fills(*size));
        let known = |size: usize| self.sizes.get(&place(size));
        let unknown = |size: &usize| known(*size).is_none_or(|cost| cost.seen < OBSERVED_MIN);
        let least = self.cheapest(usize::MAX).map_or(0.0, |(_, cost)| cost);
        // What is thought to waste least comes first: after a dear one there is none for a while.
        let stale = |size: usize| {
            let cost = known(size)?;
            let waste = (cost.mean - least) * size as f64;
            (self.batches - cost.last > STALE).then_some((waste, size))
        };
        sizes.clone().find(unknown).or_else(|| {
            let stale = sizes.filter_map(stale);
            let first = stale.min_by(|(a, _), (b, _)| a.total_cmp(b));
            first.map(|(_, size)| size)
        })
    }
}

impl Cost {
    fn observe(&mut self, per_row: f64, now: u64) {
        if now - self.last > STALE {
            self.seen = self.seen.min(STALE_SEEN);
        }
        self.last = now;
        let unlike = per_row > self.mean * CHANGED || per_row * CHANGED < self.mean;
        self.unlike = if unlike { self.unlike + 1 } else { 0 };
        if self.unlike >= CHANGED_MIN {
            // The machine has changed: what was known of this size says nothing any more.
            (self.seen, self.mean, self.unlike) = (0, per_row, 0);
        }
        self.seen = self.seen.saturating_add(1);
        let weight = WEIGHT.max(1.0 / f64::from(self.seen));
        let usual = self.mean * OUTLIER;
        self.mean += weight * (per_row.min(usual) - self.mean);
    }
}

#[cfg(test)]
mod tests;
