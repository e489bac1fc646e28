use super::*;
use crate::testing::Given;

fn counts(given: &Given, turns: u64) -> Vec<u32> {
    let mut counts = vec![0; given.loads.len()];
    for turn in 0..turns {
        let mut notes = Notes::default();
        let chosen = PowerOfTwo.choose(
            given,
            &Ask {
                turn,
                ..Ask::default()
            },
            &mut notes,
        );
        counts[chosen.expect("somebody")] += 1;
    }
    counts
}

#[test]
fn the_less_loaded_of_two_is_chosen_and_the_most_loaded_never() {
    let counts = counts(&Given::in_flight(&[0, 1, 2, 9]), 6000);
    assert_eq!(counts[3], 0, "{counts:?}");
    assert!(counts[0] > counts[1] && counts[1] > counts[2], "{counts:?}");
}

#[test]
fn latency_weighs_what_is_in_flight() {
    let load = |in_flight, latency_us| Load {
        in_flight,
        latency_us,
        ..Load::default()
    };
    let loads = vec![load(5, Some(1000.0)), load(1, Some(9000.0))];
    let mut given = Given {
        loads,
        ..Given::default()
    };
    assert_eq!(
        counts(&given, 10),
        [10, 0],
        "six quick ones are quicker than two slow ones"
    );
    given.loads[1].latency_us = None;
    assert_eq!(
        counts(&given, 10),
        [0, 10],
        "who was never seen is tried by its count"
    );
}

#[test]
fn who_is_down_is_never_chosen() {
    let given = Given::in_flight(&[0; 20]).without(&(0..19).collect::<Vec<_>>());
    assert_eq!(counts(&given, 100)[19], 100);
    let given = Given::in_flight(&[0; 3]).without(&[0, 1, 2]);
    let mut notes = Notes::default();
    assert_eq!(PowerOfTwo.choose(&given, &Ask::default(), &mut notes), None);
}

/// With one look at stale reports for a whole burst, nobody gets more than a few times its share.
#[test]
fn a_burst_between_two_reports_is_spread() {
    let mut given = Given::in_flight(&[0; 50]);
    for turn in 0..500 {
        let mut notes = Notes::default();
        let ask = Ask {
            turn,
            ..Ask::default()
        };
        let chosen = PowerOfTwo
            .choose(&given, &ask, &mut notes)
            .expect("somebody");
        given.loads[chosen].in_flight += 1;
    }
    let busiest = given.loads.iter().map(|load| load.in_flight).max();
    assert!(busiest <= Some(13), "{busiest:?}, the mean is 10");
}
