//! Whatever comes, in whatever order: what a queue never does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::*;
use super::node;
use crate::request::Request;

const SECOND_MS: u64 = 1_000;
/// The longest that anybody runs.
const LONGEST_MS: u64 = 300 * SECOND_MS;
/// In these tests all levels are overtaken for so long.
const OVERTAKEN_MS: u64 = 600 * SECOND_MS;

#[derive(Debug, Clone)]
pub(super) enum Event {
    Comes(Box<Job>, u64),
    Passes(u64),
    Cancels(usize),
    Loses(usize),
}

fn a_job() -> impl Strategy<Value = (Job, u64)> {
    let gpus = prop_oneof![
        Just((0_u8, 0_u16)),
        Just((1, 400)),
        Just((1, 1_000)),
        Just((2, 1_000)),
        Just((4, 1_000)),
    ];
    let times = (1..LONGEST_MS, prop::option::of(1_u64..60), any::<bool>());
    let promise = (
        1_u8..6,
        any::<bool>(),
        any::<bool>(),
        prop::option::of(60_u64..900),
    );
    let tenant = prop_oneof![Just("a"), Just("b"), Just("c")];
    (gpus, 1_u32..4, times, promise, tenant).prop_map(
        |(
            (gpus, gpu_milli),
            gang,
            (runs, checkpoint, known),
            (qos, realtime, soft, within),
            tenant,
        )| {
            let request = Request {
                cpu_milli: 2_000,
                memory_mib: 1_000,
                gpus,
                gpu_milli,
                ..Request::default()
            };
            let job = Job {
                tenant: tenant.to_owned(),
                gang,
                priority: if realtime {
                    Priority::Realtime
                } else {
                    Priority::CostOptimized
                },
                qos: Level::try_from(qos).unwrap(),
                preemptible: soft,
                deadline_ms: within.map(|seconds| seconds * SECOND_MS),
                expected_ms: known.then_some(runs),
                checkpoint_ms: checkpoint.map(|seconds| seconds * SECOND_MS),
                ..Job::new(0, request)
            };
            (job, runs)
        },
    )
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => a_job().prop_map(|(job, runs)| Event::Comes(Box::new(job), runs)),
        6 => (0_u64..60).prop_map(|seconds| Event::Passes(seconds * SECOND_MS)),
        1 => (0_usize..50).prop_map(Event::Cancels),
        1 => (0_usize..4).prop_map(Event::Loses),
    ];
    prop::collection::vec(event, 1..90)
}

pub(super) fn config() -> Config {
    let mut levels = [1, 2, 3, 4, 5].map(|number| {
        let level = Level::try_from(number).unwrap();
        *qos::Table::default().of(level)
    });
    for level in &mut levels {
        level.overtaken_ms = OVERTAKEN_MS;
    }
    levels[0].overtaken_ms = 100 * OVERTAKEN_MS;
    let quota = |gpus: u64| Tenant {
        nominal: Some(Amounts {
            cpu_milli: 60_000,
            memory_mib: 100_000,
            gpu_milli: gpus * 1_000,
        }),
        borrowing_limit: (gpus == 4).then_some(Amounts {
            gpu_milli: 6_000,
            cpu_milli: 100_000,
            memory_mib: 100_000,
        }),
        ..Tenant::default()
    };
    Config {
        policy: "gpupacking".to_owned(),
        qos: qos::Table::new(levels).unwrap(),
        tenants: [("a".to_owned(), quota(4)), ("b".to_owned(), quota(8))].into(),
        moves_permille_hour: 500,
        reclaim: Reclaim::Worthwhile,
        ..Config::default()
    }
}

/// A queue, the processes that it started, and a clock.
pub(super) struct Life {
    pub(super) queue: Queue,
    now_ms: u64,
    next: u64,
    runs: BTreeMap<JobId, u64>,
    /// Processes: whose, where, and until when.
    alive: BTreeMap<JobId, (Vec<Place>, u64)>,
    /// Old places of members that move.
    leaving: BTreeMap<JobId, Vec<Place>>,
    stopping: BTreeMap<JobId, u64>,
    pub(super) journal: Vec<Line>,
    started_ms: BTreeMap<JobId, u64>,
    steps: u32,
    /// Each so many steps it is tried whether a restart changes anything.
    restarts: u32,
}

impl Life {
    pub(super) fn new(queue: Queue) -> Self {
        Self {
            queue,
            now_ms: 0,
            next: 1,
            runs: BTreeMap::new(),
            alive: BTreeMap::new(),
            leaving: BTreeMap::new(),
            stopping: BTreeMap::new(),
            journal: Vec::new(),
            started_ms: BTreeMap::new(),
            steps: 0,
            restarts: 3,
        }
    }

    fn tell(&mut self, told: Told) {
        let at_ms = self.now_ms;
        self.queue.tell(at_ms, told.clone()).unwrap();
        self.journal.push(Line { at_ms, told });
    }

    pub(super) fn happens(&mut self, event: &Event) {
        match event {
            Event::Comes(job, runs) => {
                let mut job = Job::clone(job);
                job.id = JobId(self.next);
                job.deadline_ms = job.deadline_ms.map(|within| self.now_ms + within);
                self.runs.insert(job.id, *runs);
                self.next += 1;
                self.tell(Told::Submitted { job });
            }
            Event::Passes(ms) => {
                let until = self.now_ms + ms;
                self.passes(until);
            }
            Event::Cancels(nth) => {
                let id = self.queue.jobs().nth(*nth).map(|entry| entry.job.id);
                if let Some(id) = id {
                    self.tell(Told::Cancelled { id });
                }
            }
            Event::Loses(nth) => {
                let node = self.queue.cluster().nodes().get(*nth).cloned();
                if let Some(node) = node {
                    let name = node.name.clone();
                    for (places, _) in self.alive.values_mut() {
                        places.retain(|place| place.node != name);
                    }
                    for places in self.leaving.values_mut() {
                        places.retain(|place| place.node != name);
                    }
                    self.tell(Told::NodeLeft { name });
                    self.step();
                    self.tell(Told::NodeJoined { node });
                }
            }
        }
        self.step();
    }

    fn passes(&mut self, until_ms: u64) {
        loop {
            let ends = self
                .alive
                .iter()
                .filter(|(id, _)| !self.stopping.contains_key(id));
            let ends = ends.map(|(id, (_, end))| (*end, *id));
            let stops = self.stopping.iter().map(|(id, end)| (*end, *id));
            let Some((at, id)) = ends.chain(stops).min().filter(|(at, _)| *at <= until_ms) else {
                break;
            };
            self.now_ms = self.now_ms.max(at);
            self.alive.remove(&id);
            self.leaving.remove(&id);
            if self.stopping.remove(&id).is_some() {
                self.tell(Told::Stopped { id });
            } else {
                self.tell(Told::Finished { id });
            }
            self.step();
        }
        self.now_ms = until_ms;
        for id in self.leaving.keys().copied().collect::<Vec<_>>() {
            self.leaving.remove(&id);
            self.tell(Told::Moved { id });
        }
        self.step();
    }

    fn step(&mut self) {
        self.steps += 1;
        let before = self
            .steps
            .is_multiple_of(self.restarts)
            .then(|| self.queue.save());
        let actions = self.queue.step(self.now_ms);
        if let Some(before) = before {
            let again = Queue::restore(self.queue.config().clone(), reread(&before));
            assert_eq!(again.unwrap().step(self.now_ms), actions, "after a restart");
        }
        for action in &actions {
            self.does(action);
        }
        let told = Told::Stepped { actions };
        self.journal.push(Line {
            at_ms: self.now_ms,
            told,
        });
        self.holds();
    }

    fn does(&mut self, action: &Action) {
        match action {
            Action::Start { job, places, .. } => {
                let entry = self.queue.get(*job).unwrap();
                assert_eq!(
                    places.len(),
                    entry.job.gang as usize,
                    "a gang is never partial"
                );
                self.started_ms.insert(*job, self.now_ms);
                let end = self.now_ms + self.runs[job];
                assert!(self.alive.insert(*job, (places.clone(), end)).is_none());
            }
            Action::Stop { job, reason } => {
                if let Eviction::Preempted { by, .. } = reason {
                    let (by, victim) =
                        (self.queue.get(*by).unwrap(), self.queue.get(*job).unwrap());
                    assert!(by.job.priority >= victim.job.priority, "{by:?} {victim:?}");
                    assert!(by.job.qos >= victim.job.qos, "{by:?} {victim:?}");
                    assert!(victim.job.preemptible && victim.job.qos < Level::HIGHEST);
                    assert!(matches!(by.phase, Phase::Reserved { .. }), "{by:?}");
                }
                self.stopping.insert(*job, self.now_ms + 2 * SECOND_MS);
            }
            Action::Move {
                job, member, to, ..
            } => {
                let entry = self.queue.get(*job).unwrap();
                assert!(entry.job.qos.number() < 4 && entry.job.preemptible);
                let (places, _) = self.alive.get_mut(job).unwrap();
                let from = std::mem::replace(&mut places[*member as usize], to.clone());
                self.leaving.entry(*job).or_default().push(from);
            }
        }
    }

    /// What processes have together is never more than there is.
    fn holds(&self) {
        self.queue.books_are_right();
        self.queue.room_for_one_is_room(self.now_ms);
        let mut gpus: BTreeMap<(&str, u8), u32> = BTreeMap::new();
        let mut cpu: BTreeMap<&str, u32> = BTreeMap::new();
        let alive = self.alive.iter().map(|(id, (places, _))| (id, places));
        for (id, places) in alive.chain(&self.leaving) {
            let cores = self.queue.get(*id).unwrap().job.request.cpu_milli;
            for place in places {
                *cpu.entry(&place.node).or_default() += cores;
                for gpu in &place.gpus {
                    *gpus.entry((&place.node, *gpu)).or_default() += u32::from(place.gpu_milli);
                }
            }
        }
        assert!(gpus.values().all(|milli| *milli <= 1_000), "{gpus:?}");
        for node in self.queue.cluster().nodes() {
            let used = cpu.get(node.name.as_str()).copied().unwrap_or_default();
            assert!(used <= node.cpu_milli, "{cpu:?}");
        }
    }
}

impl Queue {
    /// What is kept as jobs come and go is what a count of all that are there finds.
    fn books_are_right(&self) {
        let (mut movables, mut ends) = (Movables::default(), Ends::default());
        for (id, taken) in &self.taken {
            let entry = &self.entries[id];
            ends.enter(entry, taken);
            if self.movable(entry) {
                movables.enter(*id, taken);
            }
        }
        assert_eq!(self.movables, movables);
        assert_eq!(self.ends, ends);
    }

    /// What is found node by node is what is found by letting all end in turn.
    fn room_for_one_is_room(&self, now_ms: u64) {
        let ends = self.ends(now_ms);
        for id in &self.pending {
            let asks = &self.asks[id];
            if !world::fits(self.cluster().states(), asks, 1) {
                let plainly = self.soonest_for(asks, 1, &ends);
                assert_eq!(self.soonest_for_one(asks, now_ms), plainly);
            }
        }
    }
}

fn reread(saved: &Saved) -> Saved {
    serde_json::from_str(&serde_json::to_string(saved).unwrap()).unwrap()
}

pub(super) fn nodes() -> Vec<Node> {
    vec![node("n1", 12, 4), node("n2", 16, 4), node("n3", 8, 2)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn promises_are_kept_whatever_comes(events in events()) {
        let mut life = Life::new(Queue::new(config(), nodes()).unwrap());
        for event in &events {
            life.happens(event);
        }
        // Nobody new comes: all that can ever run do so in the end.
        let last = life.now_ms + 400 * (LONGEST_MS + 100 * OVERTAKEN_MS);
        life.passes(last);
        for entry in life.queue.jobs() {
            let Phase::Pending { wait } = &entry.phase else {
                panic!("{entry:?} is still there");
            };
            let possible = entry.job.gang * u32::from(entry.job.request.gpus) <= 8;
            prop_assert!(*wait == Wait::NoMatchingFlavor || !possible, "{entry:?}");
        }
        let mut again = Queue::new(config(), nodes()).unwrap();
        prop_assert_eq!(again.replay(&life.journal).unwrap(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Realtime jobs come faster than they can be served. Whoever waits past its bound starts when those before it have run one
    /// after the other, each of which waits at most for the longest that runs.
    #[test]
    fn nobody_is_overtaken_for_longer_than_the_bound(
        large in prop::collection::vec((0_u64..1_800, 1_u32..4), 1..4),
        small in prop::collection::vec((60_u64..300, any::<bool>()), 300),
    ) {
        let mut life = Life::new(Queue::new(config(), nodes()).unwrap());
        life.restarts = u32::MAX;
        let mut waiting = BTreeMap::new();
        let mut small = small.into_iter().enumerate();
        let mut large: BTreeSet<_> = large.into_iter().collect();
        while life.now_ms < 3_000 * SECOND_MS {
            while let Some((at, gang)) = large.first().copied().filter(|(at, _)| at * SECOND_MS <= life.now_ms) {
                large.remove(&(at, gang));
                let job = Job { gang, qos: Level::HIGHEST, expected_ms: Some(LONGEST_MS), ..super::job(0, if gang == 1 { 4 } else { 2 }) };
                waiting.insert(JobId(life.next), life.now_ms);
                life.happens(&Event::Comes(Box::new(job), LONGEST_MS));
            }
            let (_, (seconds, realtime)) = small.next().unwrap();
            let runs = seconds * SECOND_MS;
            let job = Job {
                priority: if realtime { Priority::Realtime } else { Priority::CostOptimized },
                qos: Level::LOWEST,
                tenant: "b".to_owned(),
                expected_ms: Some(runs),
                ..super::job(0, 1)
            };
            life.happens(&Event::Comes(Box::new(job), runs));
            life.happens(&Event::Passes(10 * SECOND_MS));
        }
        let ahead = waiting.len() as u64;
        for (id, came) in waiting {
            let bound = came + OVERTAKEN_MS + 2 * ahead * LONGEST_MS;
            if let Some(started) = life.started_ms.get(&id) {
                prop_assert!(*started <= bound, "{id} came {came}, started {started}");
            } else {
                prop_assert!(life.now_ms <= bound, "{id} came {came} and waits: {:?}", life.queue.get(id));
            }
        }
    }
}
