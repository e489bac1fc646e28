use std::collections::HashMap;

use Priority::{Bulk, Interactive, Realtime, Standard};
use proptest::prelude::*;

use super::*;

fn entry<T>(class: Priority, cost: u32, item: T) -> Entry<T> {
    Entry { class, cost, item }
}

fn push<T>(queue: &mut Queue<T>, class: Priority, cost: u32, item: T) -> Ticket {
    queue
        .push(entry(class, cost, item), usize::MAX)
        .expect("there is no bound")
        .0
}

fn class() -> impl Strategy<Value = Priority> {
    prop::sample::select(Priority::ALL.to_vec())
}

#[test]
fn a_round_goes_from_the_highest_class_to_the_lowest_by_shares() {
    let mut queue = Queue::default();
    for _ in 0..200 {
        for class in [Bulk, Standard, Interactive, Realtime] {
            push(&mut queue, class, 1, class);
        }
    }
    let mut runs: Vec<(Priority, usize)> = Vec::new();
    for _ in 0..30 {
        let class = queue.pop(|_| true).expect("800 wait");
        match runs.last_mut() {
            Some((same, count)) if *same == class => *count += 1,
            _ => runs.push((class, 1)),
        }
    }
    let round = [(Realtime, 8), (Interactive, 4), (Standard, 2), (Bulk, 1)];
    assert_eq!(runs, [round, round].concat());
}

#[test]
fn a_full_queue_lets_a_higher_class_displace_the_youngest_of_the_lowest() {
    let mut queue = Queue::default();
    for (class, item) in [(Bulk, "b1"), (Standard, "s1"), (Bulk, "b2")] {
        push(&mut queue, class, 1, item);
    }
    for (class, item, expected) in [
        (Bulk, "b3", Err(Full)),
        (Standard, "s2", Ok(Some("b2"))),
        (Realtime, "r1", Ok(Some("b1"))),
        (Standard, "s3", Err(Full)),
        (Interactive, "i1", Ok(Some("s2"))),
        (Realtime, "r2", Ok(Some("s1"))),
        (Realtime, "r3", Ok(Some("i1"))),
        (Realtime, "r4", Err(Full)),
    ] {
        let pushed = queue.push(entry(class, 1, item), 3);
        assert_eq!(pushed.map(|(_, displaced)| displaced), expected, "{item}");
        assert_eq!(queue.len(), 3);
    }
    assert_eq!(queue.push(entry(Realtime, 1, "none"), 0), Err(Full));
}

#[test]
fn whoever_is_not_accepted_costs_its_class_nothing() {
    let mut queue = Queue::default();
    for turn in 0..100 {
        push(&mut queue, Realtime, 1, turn);
        push(&mut queue, Bulk, 1, 1000 + turn);
    }
    let mut accepted = Vec::new();
    while let Some(item) = queue.pop(|item| *item >= 50) {
        accepted.push(item);
    }
    assert_eq!(accepted[..9], [50, 51, 52, 53, 54, 55, 56, 57, 1000]);
    assert_eq!(accepted.len(), 150);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_class_is_first_come_first_served_whoever_leaves(
        steps in prop::collection::vec((0u32..4, class(), 1u32..9, any::<prop::sample::Index>()), 1..400),
    ) {
        let mut queue = Queue::default();
        let mut waiting: Vec<(Ticket, Priority, usize)> = Vec::new();
        for (number, (step, class, cost, which)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => {
                    let ticket = push(&mut queue, class, cost, (class, number));
                    waiting.push((ticket, class, number));
                }
                2 => {
                    let popped = queue.pop(|_| true);
                    prop_assert_eq!(popped.is_none(), waiting.is_empty());
                    if let Some((class, number)) = popped {
                        let first = waiting.iter().position(|(_, other, _)| *other == class);
                        let (_, _, oldest) = waiting.remove(first.expect("it waited"));
                        prop_assert_eq!(oldest, number);
                    }
                }
                _ if !waiting.is_empty() => {
                    let (ticket, _, _) = waiting.remove(which.index(waiting.len()));
                    prop_assert!(queue.remove(ticket));
                    prop_assert!(!queue.remove(ticket));
                }
                _ => {}
            }
            prop_assert_eq!(queue.len(), waiting.len());
            let slots: usize = queue.lines.iter().map(|line| line.slots.len()).sum();
            prop_assert!(slots <= 2 * queue.len() + 5 * DEAD_MIN, "slots of those who left are bounded");
        }
    }

    #[test]
    fn shares_hold_between_classes_that_all_wait(
        costs in prop::collection::vec((class(), 1u32..9), 400..800),
        served in 1usize..100,
    ) {
        let mut queue = Queue::default();
        for (class, cost) in &costs {
            push(&mut queue, *class, *cost, (*class, *cost));
        }
        let mut spent: HashMap<Priority, f64> = HashMap::new();
        for _ in 0..served {
            let (class, cost) = queue.pop(|_| true).expect("more wait than are served");
            if Priority::ALL.iter().any(|class| queue.waiting(*class) == 0) {
                break;
            }
            *spent.entry(class).or_default() += f64::from(cost) / f64::from(QUANTA[index(class)]);
        }
        for one in Priority::ALL {
            for other in Priority::ALL {
                let (one, other) = (spent.get(&one).unwrap_or(&0.0), spent.get(&other).unwrap_or(&0.0));
                // A round, and the rounds that the dearest request of the smallest share takes.
                prop_assert!((one - other).abs() <= 1.0 + f64::from(COST_MAX), "{spent:?}");
            }
        }
    }

    #[test]
    fn nobody_starves_and_the_wait_is_foretold(
        before in prop::collection::vec(class(), 0..300),
        popped in 0usize..50,
        class in class(),
    ) {
        let mut queue = Queue::default();
        for class in before {
            push(&mut queue, class, 1, false);
        }
        for _ in 0..popped {
            queue.pop(|_| true);
        }
        let ahead = queue.ahead(class, 1);
        push(&mut queue, class, 1, true);
        // What comes later never comes before, if it is of the same class, and no more than its share if of others.
        let mut gone = 0;
        while queue.pop(|_| true) == Some(false) {
            gone += 1;
        }
        prop_assert!(gone <= ahead, "{gone} went before, {ahead} were foretold");
    }

    #[test]
    fn bulk_gets_its_turn_under_any_flood(flood in prop::collection::vec((class(), 1u32..9), 1..300)) {
        let mut queue = Queue::default();
        push(&mut queue, Bulk, COST_MAX, (Bulk, 0, true));
        let mut spent = 0;
        let mut more = flood.iter().cycle();
        loop {
            for _ in 0..4 {
                let (class, cost) = more.next().expect("it goes round");
                push(&mut queue, *class, *cost, (*class, *cost, false));
            }
            let (_, cost, first) = queue.pop(|_| true).expect("somebody waits");
            if first {
                break;
            }
            spent += cost;
            prop_assert!(spent <= COST_MAX * (QUANTA[0] + QUANTA[1] + QUANTA[2]) + 3 * COST_MAX, "{spent}");
        }
    }
}
