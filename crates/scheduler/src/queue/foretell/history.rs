//! How long jobs took, and how good what was foretold was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::job::Job;
use super::Estimate;
use crate::rng::Rng;

/// Durations of jobs that ended, by size, and how far estimates are to be stretched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct History {
    /// By doublings of GPUs asked for.
    classes: BTreeMap<u8, Ring>,
    /// Logarithms of the factors on the half and on the nine of ten.
    stretch: [f64; 2],
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Ring {
    durations_ms: Vec<u64>,
    next: usize,
}

/// Durations of a size that are remembered; the oldest goes.
const DURATIONS_MAX: usize = 512;

/// What one estimate moves the factors by: a hundred of them by an e-fold at most.
const STEP: f64 = 0.08;

/// Factors stay within e to this.
const STRETCH_MAX: f64 = 6.0;

/// Of a job about which nothing is known.
const UNKNOWN_MS: f64 = 3.6e6;

impl History {
    pub fn finished(&mut self, job: &Job, ran_ms: u64) {
        let ring = self.classes.entry(class(job)).or_default();
        if ring.durations_ms.len() < DURATIONS_MAX {
            ring.durations_ms.push(ran_ms);
        } else {
            ring.next %= DURATIONS_MAX;
            ring.durations_ms[ring.next] = ran_ms;
            ring.next += 1;
        }
    }

    /// A job that was given this estimate has waited so long since. Estimates that are exceeded too often grow, and those
    /// that are exceeded too rarely shrink (adaptive conformal inference, NeurIPS'21).
    pub fn waited(&mut self, foretold: &Estimate, waited_ms: u64) {
        let told = [(foretold.p50_ms, 0.5), (foretold.p90_ms, 0.1)];
        for (stretch, (told, share)) in self.stretch.iter_mut().zip(told) {
            let late = f64::from(u8::from(waited_ms > told));
            *stretch = (*stretch + STEP * (late - share)).clamp(-STRETCH_MAX, STRETCH_MAX);
        }
    }

    pub(super) fn stretched(&self, p50_ms: u64, p90_ms: u64) -> Estimate {
        let [half, most] = self.stretch.map(f64::exp);
        let p50_ms = stretched(p50_ms, half);
        Estimate {
            p50_ms,
            p90_ms: stretched(p90_ms, most).max(p50_ms),
        }
    }

    /// What is left of a job that has run for so long.
    pub(super) fn remaining_ms(&self, job: &Job, elapsed_ms: u64, rng: &mut Rng) -> u64 {
        if let Some(expected) = job.expected_ms {
            // One that should be over may be at any moment.
            return expected.saturating_sub(elapsed_ms).max(elapsed_ms / 8 + 1);
        }
        let ring = self.classes.get(&class(job));
        let known = ring.map_or(&[][..], |ring| ring.durations_ms.as_slice());
        let longer = known.iter().filter(|known| **known > elapsed_ms).count();
        let drawn = rng.below(longer);
        let mut longer = known.iter().filter(|known| **known > elapsed_ms);
        match longer.nth(drawn) {
            Some(duration) => duration - elapsed_ms,
            // What has run for long will run for as long again.
            None => whole_ms(rng.exponential((elapsed_ms as f64).max(UNKNOWN_MS / 4.0))),
        }
    }
}

fn class(job: &Job) -> u8 {
    let gpus = u32::from(job.request.gpus) * job.gang;
    u8::try_from((gpus * 2).checked_ilog2().unwrap_or(0)).unwrap_or(u8::MAX)
}

/// A second at least, so that there is something to stretch.
fn stretched(ms: u64, factor: f64) -> u64 {
    whole_ms(ms.max(1_000) as f64 * factor)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of floats saturates, and none is negative"
)]
fn whole_ms(ms: f64) -> u64 {
    ms.round() as u64
}
