use super::*;
use crate::testing::{Given, counts};

#[test]
fn the_least_loaded_of_a_small_pool_is_always_found() {
    let given = Given::in_flight(&[3, 1, 0, 7]);
    assert_eq!(counts(&LeastLoaded, &given, 100), [0, 0, 100, 0]);
    let given = given.without(&[2]);
    assert_eq!(counts(&LeastLoaded, &given, 100), [0, 100, 0, 0]);
}

#[test]
fn equals_share_the_work() {
    let counts = counts(&LeastLoaded, &Given::in_flight(&[2; 8]), 8000);
    let all = counts.iter().all(|count| (900..1100).contains(count));
    assert!(all, "{counts:?}");
}

#[test]
fn of_a_large_pool_a_sample_is_looked_at() {
    let busy: Vec<u32> = (0..1000).collect();
    let counts = counts(&LeastLoaded, &Given::in_flight(&busy), 1000);
    let of_busier_half: u32 = counts[500..].iter().sum();
    assert!(
        of_busier_half < 3,
        "sixteen draws of the busier half: {of_busier_half}"
    );
}

#[test]
fn whoever_is_left_is_found() {
    let down: Vec<usize> = (0..999).collect();
    let given = Given::in_flight(&[0; 1000]).without(&down);
    assert_eq!(counts(&LeastLoaded, &given, 10)[999], 10);
}
