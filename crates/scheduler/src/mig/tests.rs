use std::collections::BTreeSet;

use super::plan::{Demand, Plan};
use super::*;

/// What NVIDIA's table says of each profile: instances at most on a device, and of all of one family together.
#[test]
fn each_profile_fits_as_often_as_the_user_guide_says() {
    let times = |family: &'static Family, shape: u8| {
        let automaton = Automaton::of(family);
        let most = (0..automaton.states()).map(|state| {
            let same = automaton.instances(state).filter(|(own, _)| *own == shape);
            same.count()
        });
        most.max().unwrap_or(0)
    };
    let all = |family: &'static Family| {
        let shapes = 0..u8::try_from(family.shapes.len()).unwrap();
        shapes.map(|shape| times(family, shape)).collect::<Vec<_>>()
    };
    assert_eq!(all(&EIGHT), [7, 1, 4, 3, 2, 1, 1]);
    assert_eq!(all(&FOUR), [4, 1, 2, 1, 1]);
    for geometry in &GEOMETRIES {
        assert_eq!(
            geometry.profiles.len(),
            geometry.family.shapes.len(),
            "{}",
            geometry.model
        );
    }
}

/// All states that can be reached, checked slice by slice without the automaton's own arithmetic.
#[test]
fn no_device_reaches_an_illegal_state() {
    for family in [&EIGHT, &FOUR] {
        let automaton = Automaton::of(family);
        let mut placements = 0;
        let mut seen = BTreeSet::new();
        for state in 0..automaton.states() {
            let held: Vec<_> = automaton.instances(state).collect();
            assert!(seen.insert(held.clone()), "{held:?} twice");
            assert!(legal(family, &held), "{held:?}");
            for shape in 0..u8::try_from(family.shapes.len()).unwrap() {
                let starts: Vec<_> = automaton.starts(state, shape).collect();
                assert_eq!(automaton.fits(state, shape), !starts.is_empty());
                for start in 0..8 {
                    let mut more = held.clone();
                    more.push((shape, start));
                    more.sort_unstable();
                    let next = automaton.with(state, shape, start);
                    assert_eq!(next.is_some(), legal(family, &more), "{more:?}");
                    let Some(next) = next else { continue };
                    placements += 1;
                    assert_eq!(automaton.instances(next).collect::<Vec<_>>(), more);
                    assert_eq!(automaton.without(next, shape, start), Some(state));
                    assert!(starts.contains(&(start, next)));
                }
            }
        }
        assert!(placements > automaton.states().into());
    }
}

fn legal(family: &Family, held: &[(u8, u8)]) -> bool {
    let mut slices = [0_u8; 16];
    let (mut compute, mut media) = (0, 0);
    for (shape, start) in held {
        let shape = &family.shapes[usize::from(*shape)];
        if !shape.starts.contains(start) {
            return false;
        }
        for slice in *start..*start + shape.memory {
            slices[usize::from(slice)] += 1;
        }
        compute += shape.compute;
        media += u8::from(shape.media);
    }
    let (own, beyond) = slices.split_at(family.memory.into());
    own.iter().all(|taken| *taken <= 1)
        && beyond.iter().all(|taken| *taken == 0)
        && compute <= family.compute
        && media <= 1
}

#[test]
fn a_model_is_known_as_people_write_it() {
    let name = |model: &str, mib| {
        let found = geometry_of(model, mib).map(|at| &GEOMETRIES[usize::from(at)]);
        found.map(|geometry| (geometry.model, geometry.gib))
    };
    for (model, mib, found) in [
        ("A100", 0, Some(("A100", 40))),
        ("A100", 81_920, Some(("A100", 80))),
        ("A100", 40_960, Some(("A100", 40))),
        ("NVIDIA-A100-SXM4-80GB", 0, Some(("A100", 80))),
        ("NVIDIA H100 80GB HBM3", 0, Some(("H100", 80))),
        ("NVIDIA H100 NVL", 0, Some(("H100", 94))),
        ("h100", 0, Some(("H100", 80))),
        ("NVIDIA GH200 480GB", 97_871, Some(("GH200", 96))),
        ("H200", 143_771, Some(("H200", 141))),
        ("NVIDIA B200", 183_359, Some(("B200", 180))),
        ("NVIDIA A30", 0, Some(("A30", 24))),
        ("A10", 0, None),
        ("V100M32", 0, None),
        ("", 0, None),
    ] {
        assert_eq!(name(model, mib), found, "{model} {mib}");
    }
    // The same name is another shape on another device.
    let shape = |at: usize| {
        GEOMETRIES[at].family.shapes[usize::from(GEOMETRIES[at].shape("1g.10gb").unwrap())]
    };
    assert_eq!((shape(0).memory, shape(1).memory), (2, 1));
}

/// The measure of the paper by hand: slice 0 taken, seven free; blocked are 1g at 0, the double one at 0 (of four starts),
/// 2g at 0, 3g at 0 and 4g at 0. 7g has more slices than are free and is not counted.
#[test]
fn mfi_counts_the_starts_that_are_blocked() {
    let automaton = Automaton::of(&EIGHT);
    let plan = Plan::mfi(automaton);
    assert_eq!(plan.worth(0), 0);
    let first = automaton.with(0, 0, 0).unwrap();
    assert_eq!(plan.worth(first), -(1 + 2 + 2 + 4 + 4));
    // The last start blocks least, so it is taken first.
    let last = automaton.with(0, 0, 6).unwrap();
    assert_eq!(plan.worth(last), -(1 + 2 + 4));
}

#[test]
fn a_plan_is_the_same_each_time_and_needs_something_to_plan_for() {
    let automaton = Automaton::of(&FOUR);
    let demand = |shares: Vec<f64>| Demand {
        shares,
        loads: vec![1.5],
    };
    let mixed = demand(vec![3.0, 0.0, 2.0, 0.0, 1.0]);
    assert_eq!(Plan::new(automaton, &mixed), Plan::new(automaton, &mixed));
    let nothing = demand(vec![0.0; 5]);
    assert_eq!(Plan::new(automaton, &nothing), Plan::mfi(automaton));
}
