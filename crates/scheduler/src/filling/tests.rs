use proptest::prelude::*;

use super::*;
use crate::state::Kinds;

fn ask(cores: u32, gib: u32, gpus: u8, milli: u16) -> Ask {
    Ask {
        cpu_milli: cores * 1_000,
        memory_mib: gib * 1_024,
        gpus,
        milli,
        kinds: Kinds::ALL,
        instances: 0,
    }
}

fn state(cores: u32, gib: u32, free: &[u16]) -> State {
    let mut all = [0; GPUS_MAX];
    all[..free.len()].copy_from_slice(free);
    State {
        kind: 0,
        gpus: u8::try_from(free.len()).unwrap(),
        cpu_milli: cores * 1_000,
        memory_mib: gib * 1_024,
        geometry: 0,
        free: all,
        divided: [0; GPUS_MAX],
        tags: 0,
    }
}

#[test]
fn what_is_left_is_what_no_request_can_take() {
    let filling = Filling::new(&[(ask(4, 1, 1, 300), 1)]);
    for (node, left) in [
        (state(100, 100, &[1_000]), 100),
        // CPU for two.
        (state(9, 100, &[1_000]), 400),
        (state(100, 1, &[1_000]), 700),
        (state(100, 100, &[299, 200]), 499),
        (state(3, 100, &[1_000, 1_000]), 2_000),
        (state(100, 100, &[0, 0]), 0),
        (state(100, 100, &[]), 0),
    ] {
        assert_eq!(filling.left(&node), left * SEQUENCES, "{node:?}");
    }
}

#[test]
fn another_model_takes_nothing() {
    let elsewhere = Ask {
        kinds: Kinds::of([false, true].into_iter()),
        ..ask(1, 1, 1, 1_000)
    };
    let filling = Filling::new(&[(elsewhere, 1)]);
    assert_eq!(filling.left(&state(10, 10, &[1_000])), 1_000 * SEQUENCES);
}

/// The same by the words of the definition.
fn slowly(filling: &Filling, start: &State) -> u32 {
    let mut left = 0;
    for draws in &filling.draws {
        let mut state = *start;
        for draw in draws {
            let ask = &filling.types[usize::from(*draw)].ask;
            if !ask.fits(&state) {
                continue;
            }
            let gpus = 0..usize::from(state.gpus);
            let fullest = gpus
                .filter(|gpu| state.free[*gpu] >= ask.milli)
                .min_by_key(|gpu| state.free[*gpu]);
            state = if ask.shares() {
                ask.on_gpu(&state, fullest.unwrap())
            } else {
                ask.on_fullest(&state)
            };
        }
        left += state.free_milli();
    }
    left
}

proptest! {
    #[test]
    fn filling_quickly_is_filling(
        types in prop::collection::vec(
            (0_u32..9, 0_u32..20, prop_oneof![
                Just((0_u8, 0_u16)), (1_u16..1_000).prop_map(|milli| (1, milli)), (1_u8..5).prop_map(|gpus| (gpus, 1_000)),
            ], 1_u32..9),
            1..12,
        ),
        free in prop::collection::vec(prop_oneof![Just(1_000_u16), 0_u16..1_000], 0..9),
        cores in 0_u32..60,
        gib in 0_u32..120,
    ) {
        let types: Vec<_> = types
            .into_iter()
            .map(|(cores, gib, (gpus, milli), count)| (ask(cores, gib, gpus, milli), count))
            .collect();
        let filling = Filling::new(&types);
        let state = state(cores, gib, &free);
        prop_assert_eq!(filling.left(&state), slowly(&filling, &state));
    }
}
