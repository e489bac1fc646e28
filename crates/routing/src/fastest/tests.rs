use super::*;
use crate::load::Load;
use crate::testing::{Given, counts};

fn given(members: &[(u32, Option<f32>)]) -> Given {
    let load = |(in_flight, latency_us): &(u32, Option<f32>)| Load {
        in_flight: *in_flight,
        latency_us: *latency_us,
        ..Load::default()
    };
    let loads = members.iter().map(load).collect();
    Given {
        loads,
        ..Given::default()
    }
}

#[test]
fn least_expected_wait_wins() {
    let pool = given(&[(0, Some(9000.0)), (3, Some(2000.0)), (1, Some(5000.0))]);
    assert_eq!(counts(&Fastest, &pool, 10), [0, 10, 0]);
}

#[test]
fn who_was_never_seen_is_tried_and_not_flooded() {
    let pool = given(&[(0, Some(9000.0)), (0, None)]);
    let counts_idle = counts(&Fastest, &pool, 100);
    assert!(counts_idle[1] > 0, "{counts_idle:?}");
    let pool = given(&[(0, Some(9000.0)), (1, None)]);
    assert_eq!(counts(&Fastest, &pool, 100), [100, 0]);
}
