//! A step passes over whoever cannot start; here everybody is looked at, and nothing is remembered.

use proptest::prelude::*;

use super::super::*;
use super::laws::{Life, config, events, nodes};

impl Queue {
    fn step_plainly(&mut self, now_ms: u64) -> Vec<Action> {
        let mut round = self.round(now_ms);
        for id in self.in_order(now_ms) {
            if round.closed {
                break;
            }
            round.forget();
            self.full = Full::default();
            if !self.hopeless.contains(&id)
                && let Err(wait) = self.admit(id, &mut round)
            {
                self.waits(id, wait);
            }
        }
        for fence in round.fences.iter().rev() {
            self.lower(fence);
        }
        self.start(now_ms);
        std::mem::take(&mut self.outbox)
    }
}

fn rules() -> impl Strategy<Value = Config> {
    let order = prop_oneof![
        3 => Just(Order::Promises),
        1 => Just(Order::Fifo),
        1 => Just(Order::Deadline),
        1 => Just(Order::Quota),
    ];
    let switches = (
        any::<bool>(),
        prop::bool::weighted(0.9),
        0_usize..5,
        any::<bool>(),
        prop_oneof![
            Just(Reclaim::Never),
            Just(Reclaim::Worthwhile),
            Just(Reclaim::Always)
        ],
    );
    (order, switches).prop_map(
        |(order, (preemption, backfill, reservations_max, moves, reclaim))| Config {
            order,
            preemption,
            backfill,
            reservations_max,
            reclaim,
            moves_permille_hour: if moves { 500 } else { 0 },
            ..config()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn who_is_passed_over_would_not_have_started(config in rules(), events in events()) {
        let mut life = Life::new(Queue::new(config.clone(), nodes()).unwrap());
        for event in &events {
            life.happens(event);
        }
        let mut plain = Queue::new(config, nodes()).unwrap();
        for line in life.journal {
            match line.told {
                Told::Stepped { actions } => {
                    prop_assert_eq!(plain.step_plainly(line.at_ms), actions, "at {}", line.at_ms);
                }
                told => drop(plain.tell(line.at_ms, told).unwrap()),
            }
        }
    }
}
