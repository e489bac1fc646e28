//! What is known of jobs, and what is to be done: no I/O. Time is an argument.

mod ask;
mod ending;
mod restored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use protocol::resource::{ConditionType, Job, JobPlacement, JobState, Timestamp, reason};
use scheduler::Node;
use scheduler::queue::foretell::{Estimate, History};
use scheduler::queue::{self, Action, Eviction, JobId, Place, Queue};

use crate::config::Config;
use crate::executor::{Ended, Event, How, Progress, Run, RunId};
use crate::store::Record;
use crate::words;

pub(crate) use ask::ListQuery;
use restored::restored;

/// What an executor is to do.
#[derive(Debug)]
pub(crate) enum Order {
    Start(Run),
    Stop(RunId, Duration),
    Forget(String),
}

/// A job and its life here.
#[derive(Debug)]
struct Held {
    job: Job,
    run: Option<Live>,
    /// It is started again at this moment.
    rests_until: Option<Timestamp>,
    backoff: Backoff,
    /// Of earlier attempts, all together.
    ran: Duration,
    /// What somebody was told of its start, and when: how good that was is learned when it starts.
    foretold: Option<(Timestamp, Estimate)>,
}

/// An attempt that has not ended.
#[derive(Debug)]
struct Live {
    id: RunId,
    executor: usize,
    since: Timestamp,
    ready: bool,
    stopping: Option<Stopping>,
}

/// Why an attempt was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    Cancelled,
    TimedOut,
    /// The queue gives its place to others, and it waits again.
    Evicted {
        preempted: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Desk {
    config: Config,
    queue: Queue,
    /// How long jobs take.
    history: History,
    jobs: BTreeMap<u64, Held>,
    by_id: BTreeMap<String, u64>,
    /// Oldest first.
    finished: VecDeque<u64>,
    /// By executor.
    nodes: Vec<Vec<Node>>,
    next_number: u64,
    seed: u64,
    now: Timestamp,
    dirty: BTreeSet<u64>,
    gone: Vec<u64>,
    orders: Vec<(usize, Order)>,
}

impl Desk {
    /// Goes on where `records` were written. `nodes` are of one executor each.
    pub(crate) fn restore(
        config: Config,
        nodes: Vec<Vec<Node>>,
        records: Vec<Record>,
        now: Timestamp,
    ) -> Result<Self, queue::Refused> {
        let mut desk = Self {
            queue: restored(&config, &nodes, &records)?,
            history: History::default(),
            jobs: BTreeMap::new(),
            by_id: BTreeMap::new(),
            finished: VecDeque::new(),
            nodes,
            next_number: records.last().map_or(1, |record| record.number + 1),
            seed: now.millis() ^ u64::from(std::process::id()) << 32 | 1,
            now,
            dirty: BTreeSet::new(),
            gone: Vec::new(),
            orders: Vec::new(),
            config,
        };
        let mut finished = Vec::new();
        for record in records {
            let Record { number, job, .. } = record;
            desk.remember(number, &job);
            desk.by_id.insert(job.status.id.clone(), number);
            if let Some(at) = job.status.finished_at {
                finished.push((at, number));
            }
            let held = desk.held(job, number);
            desk.jobs.insert(number, held);
        }
        finished.sort_unstable();
        desk.finished = finished.into_iter().map(|(_, number)| number).collect();
        desk.resume();
        Ok(desk)
    }

    /// How long it ran, if that is known: of one that was started again it is not.
    fn remember(&mut self, number: u64, job: &Job) {
        let status = &job.status;
        if status.state == JobState::Succeeded
            && status.attempts == 1
            && let (Some(from), Some(to)) = (status.started_at, status.finished_at)
        {
            let ran_ms = u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
            let queued = words::queued(number, &job.spec, status.submitted_at.millis());
            self.history.finished(&queued, ran_ms);
        }
    }

    /// Runs that had not ended; their executors say what has become of them.
    pub(crate) fn known(records: &[Record]) -> Vec<Run> {
        let running = records.iter().filter(|record| {
            matches!(
                record.job.status.state,
                JobState::Starting | JobState::Running | JobState::Stopping
            )
        });
        running
            .map(|record| Run {
                id: RunId {
                    job: record.job.status.id.clone(),
                    attempt: record.job.status.attempts,
                },
                placements: record.job.status.placements.clone(),
                job: Arc::new(record.job.clone()),
            })
            .collect()
    }

    fn held(&self, job: Job, number: u64) -> Held {
        let (first, longest) = self.config.restart;
        Held {
            backoff: Backoff::new(first, longest, self.seed ^ number),
            job,
            run: None,
            rests_until: None,
            ran: Duration::ZERO,
            foretold: None,
        }
    }

    /// Takes up again what was under way.
    fn resume(&mut self) {
        let numbers: Vec<u64> = self.jobs.keys().copied().collect();
        let mut homeless = Vec::new();
        for number in numbers {
            let executor = self.executor_of(number);
            let now = self.now;
            if self.is_homeless(number) {
                homeless.push(number);
            }
            let Some(held) = self.jobs.get_mut(&number) else {
                continue;
            };
            let status = &held.job.status;
            match status.state {
                state if state.is_final() => {}
                JobState::Queued => {
                    if self.queue.get(JobId(number)).is_none() {
                        held.rests_until = Some(now);
                    }
                }
                state => {
                    // Which of the two it was is not written down, but what the queue wanted is.
                    let stopping = if status.holds(ConditionType::Evicted) {
                        let preempted = status.holds(ConditionType::Preempted);
                        Stopping::Evicted { preempted }
                    } else {
                        Stopping::Cancelled
                    };
                    held.run = Some(Live {
                        id: RunId {
                            job: status.id.clone(),
                            attempt: status.attempts,
                        },
                        executor,
                        since: status.started_at.unwrap_or(now),
                        ready: state == JobState::Running,
                        stopping: (state == JobState::Stopping).then_some(stopping),
                    });
                }
            }
        }
        let lost = Ended {
            how: How::Lost,
            end: None,
            message: "the node that it ran on is not there any more".to_owned(),
        };
        for number in homeless {
            self.ended(number, &lost);
        }
    }

    /// Whether nobody could say what has become of it.
    fn is_homeless(&self, number: u64) -> bool {
        let held = self.jobs.get(&number);
        let place = held.and_then(|held| held.job.status.placements.first());
        place.is_none_or(|place| {
            let mut nodes = self.nodes.iter().flatten();
            !nodes.any(|node| node.name == place.node)
        })
    }

    /// The executor of a job's first place; the first executor when its node is not known any more.
    fn executor_of(&self, number: u64) -> usize {
        let held = self.jobs.get(&number);
        let place = held.and_then(|held| held.job.status.placements.first());
        place.map_or(0, |place| self.executor_with(&place.node))
    }

    fn executor_with(&self, node: &str) -> usize {
        let has = |nodes: &Vec<Node>| nodes.iter().any(|known| known.name == node);
        self.nodes.iter().position(has).unwrap_or(0)
    }

    /// Wall time, which never goes back here.
    pub(crate) fn at(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    pub(crate) fn event(&mut self, executor: usize, event: Event) {
        match event {
            Event::Nodes(nodes) => self.has_nodes(executor, nodes),
            Event::Run(run, progress) => self.progress(&run, progress),
        }
    }

    fn has_nodes(&mut self, executor: usize, nodes: Vec<Node>) {
        let Some(known) = self.nodes.get_mut(executor) else {
            return;
        };
        let before = std::mem::replace(known, nodes.clone());
        let now_ms = self.now.millis();
        for gone in &before {
            if !nodes.iter().any(|node| node.name == gone.name) {
                let left = self.queue.node_left(&gone.name, now_ms);
                note(left);
            }
        }
        for node in nodes {
            if !before.contains(&node) {
                let joined = self.queue.node_joined(node, now_ms);
                note(joined);
            }
        }
    }

    fn progress(&mut self, run: &RunId, progress: Progress) {
        let Some(number) = self.by_id.get(&run.job).copied() else {
            return;
        };
        let now = self.now;
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        // Of an attempt that is over nothing more is to be heard.
        let Some(live) = held.run.as_mut().filter(|live| live.id == *run) else {
            return;
        };
        let status = &mut held.job.status;
        match progress {
            Progress::Starting(message) => status.message = message,
            Progress::Ready { endpoint } => {
                live.ready = true;
                if live.stopping.is_none() {
                    status.state = JobState::Running;
                    status.reason = reason::PODS_READY.to_owned();
                    status.message = match &endpoint {
                        Some(endpoint) => format!("its model answers at {endpoint}"),
                        None => "it runs".to_owned(),
                    };
                }
                let words = (reason::PODS_READY, status.message.clone());
                status.set(ConditionType::PodsReady, true, (words.0, &words.1), now);
                status.endpoint = endpoint;
            }
            Progress::Ended(ended) => self.ended(number, &ended),
        }
        self.dirty.insert(number);
    }

    /// Does what is due, and asks the queue who is next.
    pub(crate) fn advance(&mut self) {
        self.time_out();
        self.wake();
        let now_ms = self.now.millis();
        for action in self.queue.step(now_ms) {
            match action {
                Action::Start {
                    job,
                    places,
                    reason,
                    ..
                } => self.start(job.0, &places, (reason.word(), &reason.to_string())),
                Action::Stop { job, reason } => self.stop(job.0, &reason),
                // Switched off in the queue's configuration: no executor moves a process.
                Action::Move { .. } => {}
            }
        }
        self.say_why();
    }

    fn start(&mut self, number: u64, places: &[Place], (word, why): (&str, &str)) {
        let now = self.now;
        let placements = self.placements(places);
        let executor = places
            .first()
            .map_or(0, |place| self.executor_with(&place.node));
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        if let Some((told_at, estimate)) = held.foretold.take() {
            let waited_ms = u64::try_from(now.since(told_at).as_millis()).unwrap_or(u64::MAX);
            self.history.waited(&estimate, waited_ms);
        }
        let status = &mut held.job.status;
        status.attempts += 1;
        status.state = JobState::Starting;
        status.reason = reason::ADMITTED.to_owned();
        status.message = format!("it is being started on {}", nodes_of(&placements));
        status.started_at = status.started_at.or(Some(now));
        status.placements = placements.clone();
        status.end = None;
        status.set(ConditionType::QuotaReserved, true, (word, why), now);
        let message = format!("on {}", nodes_of(&placements));
        let admitted = (reason::ADMITTED, message.as_str());
        status.set(ConditionType::Admitted, true, admitted, now);
        for undone in [ConditionType::Evicted, ConditionType::Preempted] {
            if status.holds(undone) {
                status.set(
                    undone,
                    false,
                    (reason::ADMITTED, "it has its place again"),
                    now,
                );
            }
        }
        let id = RunId {
            job: status.id.clone(),
            attempt: status.attempts,
        };
        held.run = Some(Live {
            id: id.clone(),
            executor,
            since: now,
            ready: false,
            stopping: None,
        });
        let run = Run {
            id,
            job: Arc::new(held.job.clone()),
            placements,
        };
        self.orders.push((executor, Order::Start(run)));
        self.dirty.insert(number);
    }

    /// The queue wants it to stop.
    fn stop(&mut self, number: u64, why: &Eviction) {
        let now = self.now;
        let by = match why {
            Eviction::Preempted { by, .. } | Eviction::Defragmented { by } => self.name(*by),
            Eviction::Deactivated | Eviction::NodeFailures { .. } => String::new(),
        };
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        let Some(live) = held.run.as_mut() else {
            return;
        };
        let status = &mut held.job.status;
        if *why != Eviction::Deactivated && live.stopping.is_none() {
            let preempted = matches!(why, Eviction::Preempted { .. });
            live.stopping = Some(Stopping::Evicted { preempted });
            let message = if by.is_empty() {
                why.to_string()
            } else {
                format!("it makes room for job `{by}`")
            };
            status.reason = why.word().to_owned();
            status.message.clone_from(&message);
            let words = (why.word(), message.as_str());
            status.set(ConditionType::Evicted, true, words, now);
            if preempted {
                status.set(ConditionType::Preempted, true, words, now);
            }
        }
        live.stopping.get_or_insert(Stopping::Cancelled);
        status.state = JobState::Stopping;
        let grace = Duration::from_secs(held.job.spec.grace_seconds);
        self.orders
            .push((live.executor, Order::Stop(live.id.clone(), grace)));
        self.dirty.insert(number);
    }

    /// Stops what takes longer than it may.
    fn time_out(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        for (number, held) in &mut self.jobs {
            if held.runs_out().is_some_and(|at| at <= now)
                && let Some(live) = held.run.as_mut()
            {
                live.stopping = Some(Stopping::TimedOut);
                late.push(*number);
            }
        }
        for number in late {
            let cancelled = self.queue.cancel(JobId(number));
            note(cancelled);
        }
    }

    /// Puts back in line what has rested long enough.
    fn wake(&mut self) {
        let now = self.now;
        let mut awake = Vec::new();
        for (number, held) in &mut self.jobs {
            if held.rests_until.is_some_and(|at| at <= now) {
                held.rests_until = None;
                awake.push(*number);
            }
        }
        for number in awake {
            self.enqueue(number);
        }
    }

    fn enqueue(&mut self, number: u64) {
        let Some(held) = self.jobs.get(&number) else {
            return;
        };
        let job = words::queued(
            number,
            &held.job.spec,
            held.job.status.submitted_at.millis(),
        );
        if let Err(refused) = self.queue.submit(job, self.now.millis()) {
            // The queue is full, or its region's last node is gone: it is tried again.
            let now = self.now;
            if let Some(held) = self.jobs.get_mut(&number) {
                held.job.status.message = refused.to_string();
                held.rests_until = Some(now.plus(held.backoff.next_wait()));
            }
        }
        self.dirty.insert(number);
    }

    /// Writes down why those wait that wait, where that has changed.
    fn say_why(&mut self) {
        let now = self.now;
        let mut changed = Vec::new();
        for entry in self.queue.jobs() {
            let Some(wait) = self.queue.wait(entry.job.id) else {
                continue;
            };
            let message = words::waits(wait, entry.job.gang, |job| self.name(job));
            changed.push((entry.job.id.0, wait.word(), message));
        }
        for (number, word, message) in changed {
            let Some(held) = self.jobs.get_mut(&number) else {
                continue;
            };
            let status = &mut held.job.status;
            if status.reason != word || status.message != message {
                word.clone_into(&mut status.reason);
                status.set(ConditionType::QuotaReserved, false, (word, &message), now);
                status.message = message;
                self.dirty.insert(number);
            }
        }
    }

    fn placements(&self, places: &[Place]) -> Vec<JobPlacement> {
        let region = |name: &str| {
            let mut nodes = self.nodes.iter().flatten();
            let node = nodes.find(|node| node.name == name);
            node.map(|node| node.region.clone()).unwrap_or_default()
        };
        places
            .iter()
            .map(|place| JobPlacement {
                node: place.node.clone(),
                region: region(&place.node),
                gpus: place.gpus.clone(),
            })
            .collect()
    }

    fn name(&self, job: JobId) -> String {
        let held = self.jobs.get(&job.0);
        held.map(|held| held.job.status.id.clone())
            .unwrap_or_else(|| job.to_string())
    }

    /// When there is something to do although nothing happens.
    pub(crate) fn alarm(&self) -> Option<Timestamp> {
        let own = self.jobs.values().filter_map(|held| {
            let timeout = held.runs_out();
            held.rests_until.into_iter().chain(timeout).min()
        });
        let step = (self.queue.pending() > 0).then(|| self.now.plus(self.config.step));
        own.chain(step).min()
    }

    /// What has to be written, and what may be dropped.
    pub(crate) fn changes(&mut self) -> (Vec<Record>, Vec<u64>) {
        let gone = std::mem::take(&mut self.gone);
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|number| {
            Some(Record {
                number,
                job: self.jobs.get(&number)?.job.clone(),
                entry: self.queue.get(JobId(number)).cloned(),
            })
        });
        (changed.collect(), gone)
    }

    /// What could not be written is written with what changes next.
    pub(crate) fn unwritten(&mut self, changed: &[Record], gone: Vec<u64>) {
        self.dirty
            .extend(changed.iter().map(|record| record.number));
        self.gone.extend(gone);
    }

    pub(crate) fn orders(&mut self) -> Vec<(usize, Order)> {
        std::mem::take(&mut self.orders)
    }

    /// Jobs that wait, that have a place, that are over.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let live = self.jobs.values().filter(|held| held.run.is_some()).count();
        let finished = self.finished.len();
        [self.jobs.len() - live - finished, live, finished]
    }
}

impl Held {
    /// When its time is over, if it has a limit and has not been told to end.
    fn runs_out(&self) -> Option<Timestamp> {
        let live = self.run.as_ref()?;
        let limit = Duration::from_secs(self.job.spec.timeout_seconds?);
        if live.stopping.is_some() {
            return None;
        }
        if self.job.spec.model.is_some() {
            return (!live.ready).then(|| live.since.plus(limit));
        }
        Some(live.since.plus(limit.saturating_sub(self.ran)))
    }
}

fn nodes_of(placements: &[JobPlacement]) -> String {
    let nodes: BTreeSet<_> = placements.iter().map(|place| &*place.node).collect();
    let nodes: Vec<_> = nodes.into_iter().map(|node| format!("`{node}`")).collect();
    nodes.join(", ")
}

/// The queue and the desk agree on every job; where they do not, the log says so and the job goes on.
fn note(told: Result<(), queue::Refused>) {
    if let Err(refused) = told {
        tracing::warn!(%refused, "the queue does not know what it was told");
    }
}
