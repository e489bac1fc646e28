mod goodput;

use std::cell::RefCell;
use std::collections::HashSet;

use Priority::{Bulk, Realtime, Standard};
use proptest::prelude::*;

use super::*;
use crate::testing::{ms, start};

const LONG: Duration = Duration::from_secs(600);

const ENDLESS: Patience = Patience {
    place: LONG,
    end: None,
};

fn left(now: Instant) -> (Instant, Stay) {
    (now, Stay::Unknown)
}

fn entry<T>(class: Priority, item: T) -> Entry<T> {
    Entry {
        class,
        cost: 1,
        item,
    }
}

fn line_up(
    gate: &mut Gate<u32>,
    class: Priority,
    item: u32,
    patience: Duration,
) -> Result<Lined<u32>, Refused> {
    let patience = Patience {
        place: patience,
        end: None,
    };
    gate.line_up(entry(class, item), 100, patience, |_| true)
}

#[test]
fn a_place_goes_to_the_next_in_line_and_to_nobody_else() {
    let now = start();
    let mut gate = Gate::new(1);
    assert!(gate.enter());
    assert!(!gate.enter());
    for (class, item) in [(Bulk, 1), (Standard, 2), (Realtime, 3)] {
        let lined = line_up(&mut gate, class, item, LONG);
        assert!(matches!(
            lined,
            Ok(Lined::Waiting {
                displaced: None,
                ..
            })
        ));
    }
    for expected in [Some(3), Some(2), Some(1)] {
        assert_eq!(gate.leave(left(now), |_, _| true), expected);
        assert!(!gate.enter(), "the place has changed hands");
    }
    assert_eq!(gate.leave(left(now), |_, _| true), None);
    assert!(gate.enter());
}

#[test]
fn a_place_that_is_free_after_all_is_taken_or_left() {
    let mut gate = Gate::new(1);
    let unneeded = gate.line_up(entry(Standard, 1), 0, ENDLESS, |_| false);
    assert!(matches!(unneeded, Ok(Lined::Unneeded)));
    assert_eq!(gate.inside(), 0);
    let taken = gate.line_up(entry(Standard, 1), 0, ENDLESS, |_| true);
    assert!(matches!(taken, Ok(Lined::In)));
    assert_eq!(gate.inside(), 1);
    let full = gate.line_up(entry(Standard, 1), 0, ENDLESS, |_| true);
    assert!(matches!(full, Err(Refused::Full { wait: None })));
}

#[test]
fn whoever_cannot_be_in_time_is_told_at_once() {
    let mut now = start();
    let mut gate = Gate::new(1);
    assert!(gate.enter());
    for item in 0..20 {
        line_up(&mut gate, Standard, item, ms(1)).expect("nothing is foretold yet");
    }
    for _ in 0..10 {
        now += ms(100);
        gate.leave(left(now), |_, _| true);
    }
    // Ten wait, one leaves every 100 ms.
    let refused = line_up(&mut gate, Standard, 99, ms(1000));
    assert_eq!(
        refused.expect_err("too late"),
        Refused::TooLate {
            wait: ms(1100),
            hold: ms(0)
        }
    );
    assert!(line_up(&mut gate, Standard, 99, ms(1100)).is_ok());
    assert!(
        line_up(&mut gate, Realtime, 99, ms(300)).is_ok(),
        "two may go before its class"
    );
}

#[test]
fn places_are_added_and_taken_away() {
    let now = start();
    let mut gate = Gate::new(1);
    assert!(gate.enter());
    for item in 0..5 {
        line_up(&mut gate, Standard, item, LONG).expect("there is room in line");
    }
    assert_eq!(gate.set_max(3, |_| true), [0, 1]);
    assert_eq!(gate.inside(), 3);
    assert!(gate.set_max(1, |_| true).is_empty());
    assert_eq!(gate.leave(left(now), |_, _| true), None);
    assert_eq!(gate.leave(left(now), |_, _| true), None);
    assert_eq!(gate.inside(), 1);
    assert_eq!(gate.leave(left(now), |_, _| true), Some(2));
}

/// Some gates that callers stand before, several at once.
#[derive(Default)]
struct World {
    gates: Vec<Gate<u32>>,
    /// Who was offered a place, and took it: nobody takes two.
    took: RefCell<HashSet<u32>>,
    /// Who waits where.
    waiting: Vec<(u32, Vec<(usize, Ticket)>)>,
    /// Who is inside of which.
    inside: Vec<(u32, usize)>,
}

impl World {
    fn come(&mut self, caller: u32, class: Priority, at: &[usize]) {
        if let Some(gate) = at.iter().find(|gate| self.gates[**gate].enter()) {
            self.inside.push((caller, *gate));
            return;
        }
        let mut tickets = Vec::new();
        for index in at {
            let took = &self.took;
            let takes = |caller: &u32| took.borrow_mut().insert(*caller);
            match self.gates[*index].line_up(entry(class, caller), 5, ENDLESS, takes) {
                Ok(Lined::In) => return self.granted(caller, *index),
                Ok(Lined::Unneeded) => unreachable!("whoever waits is granted at once"),
                Ok(Lined::Waiting { ticket, displaced }) => {
                    tickets.push((*index, ticket));
                    if let Some(other) = displaced {
                        self.forget(other, *index);
                    }
                }
                Err(_) => {}
            }
        }
        if !tickets.is_empty() {
            self.waiting.push((caller, tickets));
        }
    }

    fn granted(&mut self, caller: u32, gate: usize) {
        self.give_up(caller);
        self.inside.push((caller, gate));
    }

    /// It no longer waits there, though perhaps elsewhere.
    fn forget(&mut self, caller: u32, gate: usize) {
        for (other, tickets) in &mut self.waiting {
            if *other == caller {
                tickets.retain(|(index, _)| *index != gate);
            }
        }
        self.waiting.retain(|(_, tickets)| !tickets.is_empty());
    }

    fn give_up(&mut self, caller: u32) {
        let at = self.waiting.iter().position(|(other, _)| *other == caller);
        let Some(at) = at else { return };
        for (gate, ticket) in self.waiting.swap_remove(at).1 {
            self.gates[gate].cancel(ticket);
        }
    }

    fn leave(&mut self, at: usize, now: Instant) {
        let (_, gate) = self.inside.swap_remove(at);
        let took = &self.took;
        let next = self.gates[gate].leave(left(now), |caller, _| took.borrow_mut().insert(*caller));
        if let Some(caller) = next {
            self.granted(caller, gate);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_place_leaks_or_stands_free_while_somebody_waits(
        places in prop::collection::vec(1usize..4, 1..4),
        steps in prop::collection::vec(
            (0u32..5, prop::sample::select(Priority::ALL.to_vec()), any::<prop::sample::Index>(), any::<u8>()),
            1..300,
        ),
    ) {
        let now = start();
        let mut world = World { gates: places.iter().map(|max| Gate::new(*max)).collect(), ..World::default() };
        for (caller, (step, class, which, mask)) in (0u32..).zip(steps) {
            match step {
                0..=2 => {
                    let at: Vec<usize> = (0..places.len()).filter(|gate| mask >> gate & 1 == 1).collect();
                    world.come(caller, class, &at);
                }
                3 if !world.inside.is_empty() => world.leave(which.index(world.inside.len()), now),
                4 if !world.waiting.is_empty() => {
                    let (caller, _) = world.waiting[which.index(world.waiting.len())];
                    world.give_up(caller);
                }
                _ => {}
            }
            for (index, max) in places.iter().enumerate() {
                let inside = world.inside.iter().filter(|(_, gate)| *gate == index).count();
                prop_assert_eq!(world.gates[index].inside(), inside);
                prop_assert!(inside <= *max);
                let waits = world.waiting.iter().any(|(_, tickets)| tickets.iter().any(|(gate, _)| *gate == index));
                prop_assert!(!waits || inside == *max, "a place is free and somebody waits for it");
            }
        }
        while !world.inside.is_empty() {
            world.leave(0, now);
        }
        prop_assert!(world.waiting.is_empty(), "all are served in the end");
        prop_assert!(world.gates.iter().all(|gate| gate.inside() == 0));
    }
}
