use super::*;

#[test]
fn a_cycle_visits_every_slot_once() {
    for cycle in [1, 2, 3, 10, 12, 97, 100, 1000] {
        let mut slots: Vec<u64> = (0..cycle).map(|turn| spread(turn, cycle)).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..cycle).collect::<Vec<_>>(), "{cycle}");
    }
}

#[test]
fn a_canary_gets_its_share_of_ten_thousand_within_one_in_a_hundred() {
    for weights in [
        vec![99, 1],
        vec![95, 5],
        vec![1, 1, 1],
        vec![997, 2, 1],
        vec![0, 3, 7],
        vec![123_457, 76_543],
    ] {
        let mut counts = vec![0_u32; weights.len()];
        for turn in 777..10_777 {
            let whose = share(turn, weights.iter().copied()).expect("somebody");
            counts[whose] += 1;
        }
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let expected = f64::from(*weight) / f64::from(sum) * 10_000.0;
            let off = (f64::from(*count) - expected).abs();
            assert!(off <= expected * 0.01 + 1.0, "{weights:?}: {counts:?}");
        }
    }
}

#[test]
fn without_weight_nobody_has_a_turn() {
    assert_eq!(share(3, [].into_iter()), None);
    assert_eq!(share(3, [0, 0].into_iter()), None);
    assert_eq!(share(3, [0, 1].into_iter()), Some(1));
}
