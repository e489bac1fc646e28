//! MIG instances that come and leave: how many find room.

use std::collections::BTreeMap;

use anyhow::Result;
use scheduler::simulate::{Division, MIXES};

use super::super::Bench;
use super::super::results::Outcome;
use super::super::samples::{Compare, Sample};

const DEVICES: u16 = 100;

/// Slices asked for at a time as a share of all there are, if none were turned away.
const LOADS: [f64; 7] = [0.85, 1.0, 1.25, 1.5, 2.0, 2.5, 4.0];

/// `bestfit` takes the first start that is legal, as drivers do. `kapok` is told mix and load.
const POLICIES: [&str; 3] = ["bestfit", "mfi", "kapok"];

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let mut samples = Vec::new();
    for (name, mix) in MIXES {
        for load in LOADS {
            for round in 0..bench.options.rounds {
                let division = Division::new(DEVICES, mix, load, 42 + u64::from(round))?;
                for policy in POLICIES {
                    let divided = division.run(division.policy(policy)?);
                    let percent =
                        |part: u32, of: u32| 100.0 * f64::from(part) / f64::from(of.max(1));
                    samples.push(Sample {
                        case: format!("{name}, load {load}"),
                        target: policy.to_owned(),
                        round,
                        figures: BTreeMap::from([
                            ("accepted_pct", percent(divided.accepted, divided.arrived)),
                            (
                                "slices_pct",
                                percent(divided.slices_accepted, divided.slices_asked),
                            ),
                        ]),
                    });
                }
            }
        }
    }
    Ok(Outcome {
        name: "scheduler-mig",
        method: format!(
            "requests for MIG instances at random moments, exponential lifetimes, {DEVICES} H100 with 80 GB; who finds no room \
             is gone; a round is a seed, from 42 on; eight lifetimes are counted after two; mixes over the profiles \
             1g.10gb, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb: {MIXES:?}; every policy places whatever fits"
        ),
        samples,
        compare: Some(Compare {
            figure: "accepted_pct",
            baseline: "mfi",
        }),
        reference: "minimum fragmentation increment (MFI, arXiv 2511.18906); goal: 3 % more requests accepted than MFI when \
                    room is short",
    })
}
