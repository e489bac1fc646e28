use super::*;

fn policy() -> Swap {
    Swap {
        min_requests: 100,
        ..Swap::default()
    }
}

fn run(track: &Track, count: usize, time: Duration) -> Option<String> {
    (0..count).find_map(|_| track.ended(Ended::Answered(time)))
}

#[test]
fn a_slower_version_is_found_once_and_a_faster_one_never() {
    let millis = Duration::from_millis;
    for (before, after, found) in [
        (millis(10), millis(10), false),
        (millis(10), millis(5), false),
        (millis(10), millis(25), false),
        (millis(10), millis(40), true),
        // Three times as long, and nothing that anybody would notice.
        (Duration::from_micros(10), Duration::from_micros(100), false),
    ] {
        let old = Track::new(policy());
        assert_eq!(run(&old, 200, before), None);
        let new = Track::new(policy());
        new.watch(&old, policy());
        let why = run(&new, 400, after);
        assert_eq!(why.is_some(), found, "{before:?} {after:?} {why:?}");
        assert_eq!(run(&new, 400, after), None, "said once");
    }
}

#[test]
fn a_version_that_fails_more_than_the_one_before_is_found_early() {
    let old = Track::new(policy());
    run(&old, 200, Duration::from_millis(1));
    let new = Track::new(policy());
    new.watch(&old, policy());
    let why = (0..30).find_map(|_| new.ended(Ended::Failed));
    assert_eq!(why.as_deref(), Some("20 of its first 20 calls failed"));

    // Where all fails, nobody is worse.
    let old = Track::new(policy());
    for _ in 0..200 {
        old.ended(Ended::Failed);
    }
    let new = Track::new(policy());
    new.watch(&old, policy());
    assert!((0..200).all(|_| new.ended(Ended::Failed).is_none()));

    let new = Track::new(policy());
    new.watch(&Track::new(policy()), policy());
    new.trust();
    assert!((0..200).all(|_| new.ended(Ended::Failed).is_none()));
}

#[test]
fn times_are_known_within_an_eighth() {
    for micros in [2, 3, 50, 777, 1_000, 123_456, 9_000_000] {
        let time = Duration::from_micros(micros);
        let place = bucket(time);
        assert!(bound(place) <= time && time < bound(place + 1), "{time:?}");
        assert!(bound(place + 1) <= bound(place).mul_f64(1.126), "{time:?}");
    }
    assert_eq!(bucket(Duration::ZERO), 0);
    assert_eq!(bucket(Duration::MAX), STEPS * OCTAVES - 1);
}

#[test]
fn what_is_kept_is_bounded_by_count_and_bytes() {
    let keeps = Swap {
        compare: 3,
        compare_bytes_max: 40,
        ..Swap::default()
    };
    let request = |elements: usize| InferRequest {
        inputs: vec![
            Tensor::from_elements(
                "x",
                protocol::DataType::Int32,
                vec![elements],
                vec![0_i32; elements],
            )
            .expect("as many"),
        ],
        ..InferRequest::default()
    };
    let track = Track::new(keeps);
    for elements in [1, 2, 3, 4] {
        track.keep(&request(elements));
    }
    let lengths = |track: &Track| -> Vec<usize> {
        track
            .recent(9)
            .iter()
            .map(|kept| kept.inputs[0].shape[0])
            .collect()
    };
    assert_eq!(lengths(&track), [2, 3, 4]);
    track.keep(&request(11));
    assert_eq!(
        lengths(&track),
        [2, 3, 4],
        "larger than all that may be kept"
    );
    track.keep(&request(6));
    assert_eq!(lengths(&track), [4, 6]);
    let next = Track::new(keeps);
    next.inherit(&track);
    assert_eq!(lengths(&next), [4, 6]);
    let none = Track::new(Swap::default());
    none.keep(&request(1));
    assert!(none.recent(9).is_empty());
}
