use super::*;

/// Knuth's multiplier: enough for choices, and the seed is all a failure needs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn settings() -> SequenceSettings {
    SequenceSettings {
        lanes: 1,
        slots: 2,
        rows_max: 2,
        idle: Duration::from_secs(1),
        delay: Duration::ZERO,
        preferred: Vec::new(),
        waiting_max: 8,
        iterative: false,
    }
}

fn id(number: u64) -> CorrelationId {
    CorrelationId::Number(number)
}

fn now() -> Instant {
    base_instant()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an origin; no test reads it again"
)]
fn base_instant() -> Instant {
    Instant::now()
}

const START: (bool, bool) = (true, false);
const MORE: (bool, bool) = (false, false);
const END: (bool, bool) = (false, true);

fn requests(next: Next) -> Vec<(u64, usize)> {
    match next {
        Next::Run(turns) => turns.iter().map(|turn| (turn.request, turn.slot)).collect(),
        Next::Wait(_) | Next::Nothing => Vec::new(),
    }
}

#[test]
fn a_sequence_keeps_its_slot_and_runs_one_request_at_a_time() {
    let (mut sequences, t) = (Sequences::new(settings()), now());
    assert_eq!(
        sequences.enter(&id(1), MORE, t),
        Err(SequenceRefused::NotStarted)
    );
    for (number, flags) in [(1, START), (2, START), (1, MORE), (1, END), (3, START)] {
        sequences.enter(&id(number), flags, t).expect("enters");
    }
    assert_eq!(requests(sequences.next(0, t)), [(0, 0), (1, 1)]);
    assert_eq!(sequences.next(0, t), Next::Nothing);
    assert!(!sequences.done(0, t));
    assert_eq!(requests(sequences.next(0, t)), [(2, 0)]);
    sequences.done(0, t);
    assert_eq!(requests(sequences.next(0, t)), [(3, 0)]);
    assert_eq!(sequences.held(), (2, 1));
    assert!(sequences.done(0, t));
    assert_eq!(requests(sequences.next(0, t)), [(4, 0)]);
    assert_eq!(
        sequences.enter(&id(1), MORE, t),
        Err(SequenceRefused::NotStarted)
    );
}

#[test]
fn an_idle_sequence_gives_its_slot_to_one_that_waits() {
    let (mut sequences, t) = (Sequences::new(settings()), now());
    for number in 1..=3 {
        sequences.enter(&id(number), START, t).expect("enters");
    }
    assert_eq!(requests(sequences.next(0, t)).len(), 2);
    assert_eq!(sequences.expires(), None);
    sequences.done(0, t);
    let due = sequences.expires().expect("two are idle");
    assert_eq!(due, t + Duration::from_secs(1));
    sequences.enter(&id(2), MORE, due).expect("known");
    assert!(sequences.expire(due));
    assert_eq!(requests(sequences.next(0, due)), [(2, 0), (3, 1)]);
}

#[test]
fn who_leaves_ends_the_sequence_and_nobody_waits_in_vain() {
    let (mut sequences, t) = (Sequences::new(settings()), now());
    for (number, flags) in [
        (1, START),
        (1, MORE),
        (1, MORE),
        (2, START),
        (3, START),
        (3, MORE),
    ] {
        sequences.enter(&id(number), flags, t).expect("enters");
    }
    assert_eq!(sequences.leave(4, t), [5]);
    assert_eq!(requests(sequences.next(0, t)), [(0, 0), (3, 1)]);
    assert_eq!(sequences.leave(0, t), Vec::<u64>::new());
    assert_eq!(sequences.leave(1, t), [2]);
    assert_eq!(sequences.held(), (2, 0));
    sequences.done(0, t);
    assert_eq!(sequences.held(), (1, 0));
    assert_eq!(
        sequences.enter(&id(1), MORE, t),
        Err(SequenceRefused::NotStarted)
    );
}

#[test]
fn a_lane_that_lost_its_states_ends_its_sequences_and_serves_the_next() {
    let (mut sequences, t) = (Sequences::new(settings()), now());
    for (number, flags) in [(1, START), (2, START), (2, MORE), (3, START)] {
        sequences.enter(&id(number), flags, t).expect("enters");
    }
    assert_eq!(requests(sequences.next(0, t)), [(0, 0), (1, 1)]);
    assert_eq!(sequences.end_all(0, t), [2]);
    assert_eq!(sequences.held(), (2, 1));
    assert!(sequences.done(0, t));
    assert_eq!(requests(sequences.next(0, t)), [(3, 0)]);
    for number in [1, 2] {
        let refused = sequences.enter(&id(number), MORE, t);
        assert_eq!(refused, Err(SequenceRefused::NotStarted));
    }
    assert_eq!(sequences.end(0, 1, t), Vec::<u64>::new());
}

#[test]
fn one_more_than_may_wait_is_refused() {
    let (mut sequences, t) = (Sequences::new(settings()), now());
    for _ in 0..8 {
        sequences.enter(&id(1), START, t).expect("enters");
    }
    assert_eq!(
        sequences.enter(&id(1), END, t),
        Err(SequenceRefused::Full(8))
    );
}

#[test]
fn a_batch_waits_for_its_preferred_size_and_no_longer_than_the_delay() {
    let delay = Duration::from_millis(10);
    let (mut sequences, t) = (
        Sequences::new(SequenceSettings {
            slots: 4,
            rows_max: 4,
            delay,
            preferred: vec![2],
            ..settings()
        }),
        now(),
    );
    sequences.enter(&id(1), START, t).expect("enters");
    assert_eq!(sequences.next(0, t), Next::Wait(t + delay));
    assert_eq!(requests(sequences.next(0, t + delay)).len(), 1);
    sequences.done(0, t + delay);
    sequences.enter(&id(1), MORE, t).expect("enters");
    sequences.enter(&id(2), START, t).expect("enters");
    assert_eq!(requests(sequences.next(0, t)).len(), 2);
}

#[test]
fn an_iterative_sequence_runs_again_until_it_is_over_and_is_never_idle() {
    let settings = SequenceSettings {
        iterative: true,
        waiting_max: 3,
        ..settings()
    };
    let (mut sequences, t) = (Sequences::new(settings), now());
    for number in 1..=3 {
        sequences.enter(&id(number), START, t).expect("enters");
    }
    assert_eq!(requests(sequences.next(0, t)), [(0, 0), (1, 1)]);
    // As many wait as may: who was let in runs again all the same.
    for number in 4..=5 {
        sequences.enter(&id(number), START, t).expect("enters");
    }
    let full = Err(SequenceRefused::Full(3));
    assert_eq!(sequences.enter(&id(6), START, t), full);
    sequences.again((0, 0), 0, t);
    assert_eq!(sequences.end(0, 1, t), [0; 0]);
    assert!(sequences.done(0, t), "the oldest that waits has the slot");
    let seen: Vec<_> = match sequences.next(0, t) {
        Next::Run(turns) => turns
            .iter()
            .map(|turn| (turn.request, turn.start))
            .collect(),
        Next::Wait(_) | Next::Nothing => Vec::new(),
    };
    assert_eq!(seen, [(0, false), (2, true)]);
    assert!(sequences.goes_on((0, 0)));
    sequences.quit(&id(1), t);
    assert!(!sequences.goes_on((0, 0)), "its caller has left");
    sequences.quit(&id(5), t);
    assert!(sequences.done(0, t));
    let later = t + Duration::from_secs(3600);
    assert!(!sequences.expire(later));
    assert_eq!(sequences.held(), (2, 0), "3 between two runs, 4");
    for number in [3, 4] {
        sequences.quit(&id(number), later);
    }
    assert_eq!((sequences.held(), sequences.waiting), ((0, 0), 0));
}

/// A seeded run, and what it has seen.
struct Simulation {
    seed: u64,
    sequences: Sequences,
    t: Instant,
    running: Vec<Vec<Turn>>,
    /// Each request's sequence, and how often it was answered.
    seen: BTreeMap<u64, (u64, usize)>,
    /// The last request of a sequence in one slot.
    last: BTreeMap<(u64, usize, usize), u64>,
}

#[test]
fn no_request_is_lost_answered_twice_or_out_of_order() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let lanes = usize::try_from(1 + dice.below(3)).expect("small");
        let settings = SequenceSettings {
            lanes,
            waiting_max: 12,
            iterative: false,
            ..settings()
        };
        let mut simulation = Simulation {
            seed,
            sequences: Sequences::new(settings),
            t: now(),
            running: vec![Vec::new(); lanes],
            seen: BTreeMap::new(),
            last: BTreeMap::new(),
        };
        for _ in 0..400 {
            simulation.step(&mut dice);
        }
        simulation.settle();
    }
}

impl Simulation {
    fn step(&mut self, dice: &mut Dice) {
        let lane = usize::try_from(dice.below(self.running.len() as u64)).expect("small");
        match dice.below(20) {
            0..10 => {
                let number = 1 + dice.below(6);
                let flags = (dice.below(3) == 0, dice.below(4) == 0);
                if let Ok(request) = self.sequences.enter(&id(number), flags, self.t) {
                    let fresh = self.seen.insert(request, (number, 0));
                    assert!(fresh.is_none(), "seed {}", self.seed);
                }
            }
            10..14 => self.run(lane),
            14..18 => self.finish(lane),
            18 => match dice.below(4) {
                0 => {
                    for gone in self.sequences.end_all(lane, self.t) {
                        self.seen.get_mut(&gone).expect("known").1 += 1;
                    }
                }
                _ => self.depart(dice),
            },
            _ => {
                self.t += Duration::from_millis(dice.below(700));
                self.sequences.expire(self.t);
            }
        }
    }

    fn run(&mut self, lane: usize) {
        if let Next::Run(turns) = self.sequences.next(lane, self.t) {
            let free = self.running[lane].is_empty();
            assert!(free, "seed {}: two batches at once", self.seed);
            self.running[lane] = turns;
        }
    }

    fn finish(&mut self, lane: usize) {
        let turns = std::mem::take(&mut self.running[lane]);
        for turn in &turns {
            let (number, answered) = self.seen.get_mut(&turn.request).expect("known");
            *answered += 1;
            // An id that ended and began again may run in two slots; within one it keeps its order.
            let before = self.last.insert((*number, lane, turn.slot), turn.request);
            let ordered = before.is_none_or(|before| before < turn.request);
            assert!(ordered, "seed {}: out of order", self.seed);
        }
        if !turns.is_empty() {
            self.sequences.done(lane, self.t);
        }
    }

    fn depart(&mut self, dice: &mut Dice) {
        let request = dice.below(self.seen.len().max(1) as u64);
        let waits = self
            .seen
            .get(&request)
            .is_some_and(|(_, answered)| *answered == 0)
            && !self
                .running
                .iter()
                .flatten()
                .any(|turn| turn.request == request);
        let others = self.sequences.leave(request, self.t);
        if !waits {
            return assert!(others.is_empty(), "seed {}", self.seed);
        }
        for gone in others.into_iter().chain([request]) {
            self.seen.get_mut(&gone).expect("known").1 += 1;
        }
    }

    /// Everything that entered gets its answer, and every slot comes back.
    fn settle(&mut self) {
        for _ in 0..self.seen.len() * 4 + 8 {
            self.t += Duration::from_secs(2);
            for lane in 0..self.running.len() {
                self.finish(lane);
                self.run(lane);
            }
            self.sequences.expire(self.t);
        }
        let seed = self.seed;
        for (request, (_, answered)) in &self.seen {
            assert_eq!(*answered, 1, "seed {seed}: request {request}");
        }
        assert_eq!(self.sequences.held(), (0, 0), "seed {seed}: a slot leaked");
        assert!(self.sequences.open.is_empty(), "seed {seed}");
        assert_eq!(self.sequences.waiting, 0, "seed {seed}");
    }
}
