use super::*;

fn millis(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

#[test]
fn sizes_never_run_are_judged_by_their_neighbours() {
    let mut worth = Worth::default();
    assert_eq!(worth.best(7), 7, "nothing is known");
    for _ in 0..10 {
        for (rows, took) in [(1, 10.0), (4, 30.0), (8, 96.0)] {
            worth.observe(rows, millis(took), false);
        }
    }
    // 7.5 ms a row in four, 12 in eight, and what is larger is taken for no better.
    for (rows, expected) in [(1, 1), (2, 2), (4, 4), (5, 4), (7, 4), (8, 4), (32, 4)] {
        assert_eq!(worth.best(rows), expected, "{rows}");
    }
}

#[test]
fn a_size_is_left_only_for_one_that_is_clearly_cheaper() {
    for (took, expected) in [([10.0, 41.0], 4), ([10.0, 43.0], 1)] {
        let mut worth = Worth::default();
        for _ in 0..10 {
            worth.observe(1, millis(took[0]), false);
            worth.observe(4, millis(took[1]), false);
        }
        assert_eq!(worth.best(4), expected, "{took:?}");
    }
}

#[test]
fn trials_waste_their_share_of_the_time_and_one_runs_at_a_time() {
    let mut worth = Worth::default();
    let (mut total, mut wasted, mut trials) = (0.0, 0.0, 0);
    for _ in 0..50_000 {
        let size = worth.choose(32, |_| true);
        let took = 10.0 * size.rows as f64 * if size.rows == 1 { 1.0 } else { 2.0 };
        if size.trial {
            worth.begin_trial(size.rows);
            assert!(!worth.choose(32, |_| true).trial);
            trials += 1;
            wasted += took - 10.0 * size.rows as f64;
        }
        worth.observe(size.rows, millis(took), size.trial);
        worth.end_trial();
        total += took;
    }
    let bound = total * TRIAL_SHARE + 320.0;
    assert!(wasted <= bound, "{wasted} of {total} ms");
    assert!(trials > 50, "{trials} trials: a change would go unnoticed");
}

#[test]
fn a_bad_moment_of_the_machine_changes_no_mind() {
    let mut worth = Worth::default();
    for _ in 0..50 {
        worth.observe(1, millis(10.0), false);
        worth.observe(8, millis(70.0), false);
    }
    worth.observe(8, millis(5_000.0), false);
    assert_eq!(worth.best(8), 8);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut worth = Worth::default();
    for rows in 1..10_000 {
        worth.observe(rows, millis(1.0), false);
    }
    assert!(worth.sizes.len() < 128, "{}", worth.sizes.len());
}

#[test]
fn a_size_that_has_become_dear_or_cheap_is_known_after_a_few_batches() {
    for (before, after, expected) in [(70.0, 700.0, 1), (700.0, 70.0, 8)] {
        let mut worth = Worth::default();
        for _ in 0..50 {
            worth.observe(1, millis(10.0), false);
            worth.observe(8, millis(before), false);
        }
        for _ in 0..CHANGED_MIN {
            worth.observe(8, millis(after), false);
        }
        assert_eq!(worth.best(8), expected, "{before} to {after} ms");
    }
}

#[test]
fn the_machines_bad_moment_is_no_trials_debt() {
    let mut worth = Worth::default();
    for _ in 0..200 {
        worth.observe(1, millis(10.0), false);
        worth.observe(8, millis(90.0), false);
    }
    worth.begin_trial(8);
    worth.observe(8, millis(60_000.0), true);
    worth.end_trial();
    // A hundred milliseconds of waste are forgiven after some seconds of work.
    let trial = (0..1_000).any(|_| {
        worth.observe(1, millis(10.0), false);
        worth.choose(8, |_| true).trial
    });
    assert!(trial, "{worth:?}");
}

#[test]
fn a_first_batch_that_took_no_time_does_not_stay_the_cheapest() {
    let mut worth = Worth::default();
    worth.observe(8, Duration::ZERO, false);
    for _ in 0..50 {
        worth.observe(1, millis(10.0), false);
        worth.observe(8, millis(160.0), false);
    }
    assert_eq!(worth.best(8), 1);
}
