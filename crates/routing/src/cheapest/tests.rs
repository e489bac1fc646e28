use super::*;
use crate::testing::{Given, counts};

fn given(latencies_ms: &[f32]) -> Given {
    let load = |latency: &f32| Load {
        latency_us: Some(latency * 1000.0),
        ..Load::default()
    };
    let loads = latencies_ms.iter().map(load).collect();
    Given {
        loads,
        ..Given::default()
    }
}

#[test]
fn a_dearer_one_only_for_want_of_a_cheap_one_in_time() {
    let policy = Cheapest::new(&[30, 10, 20], 500);
    for (latencies, expected) in [
        ([100.0, 400.0, 100.0], 1),
        ([100.0, 600.0, 100.0], 2),
        ([100.0, 600.0, 700.0], 0),
        ([900.0, 600.0, 700.0], 1),
    ] {
        let chosen = counts(&policy, &given(&latencies), 10)[expected];
        assert_eq!(chosen, 10, "{latencies:?}");
    }
    let without = given(&[100.0, 400.0, 100.0]).without(&[1]);
    assert_eq!(counts(&policy, &without, 10), [0, 0, 10]);
}

#[test]
fn equal_prices_share_by_load() {
    let policy = Cheapest::new(&[1, 1, 9], 500);
    let counts = counts(&policy, &given(&[100.0, 100.0, 1.0]), 1000);
    assert!(
        counts[0] > 400 && counts[1] > 400 && counts[2] == 0,
        "{counts:?}"
    );
}

#[test]
fn many_prices_become_few_tiers_in_order() {
    let costs: Vec<u32> = (0..100).rev().collect();
    let policy = Cheapest::new(&costs, 500);
    assert!(policy.tiers.len() <= TIERS_MAX);
    let members: Vec<usize> = policy.tiers.concat();
    let expected: Vec<usize> = (0..100).rev().collect();
    assert_eq!(members, expected);
    assert_eq!(Cheapest::new(&[], 500).tiers.len(), 0);
}
