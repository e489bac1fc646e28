//! Jobs of a trace through a queue: who waits how long, who is late, how fair it was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::cluster::Node;
use crate::queue::{Action, Config, Job, JobId, Order, Phase, Queue, Refused};
use crate::workload::Workload;

/// A job, when it comes and how long it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    pub at_ms: u64,
    pub runs_ms: u64,
    pub job: Job,
}

/// What came of a trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Played {
    pub jobs: u32,
    pub refused: u32,
    pub wait_mean_s: f64,
    pub wait_p50_s: f64,
    pub wait_p90_s: f64,
    pub wait_p95_s: f64,
    pub wait_p99_s: f64,
    pub wait_max_s: f64,
    /// Of jobs for eight GPUs or more, the following too.
    pub wait_large_mean_s: f64,
    pub wait_large_p50_s: f64,
    pub wait_large_p90_s: f64,
    pub wait_large_p99_s: f64,
    /// From arrival to end.
    pub completion_mean_s: f64,
    /// Of jobs with a deadline: done too late, in percent.
    pub missed_pct: f64,
    /// Of jobs without a deadline: GPU hours of those that were done by the time the last job came.
    pub best_effort_gpu_h: f64,
    /// The same: from arrival to end.
    pub best_effort_completion_s: f64,
    /// Jain's index over tenants of how much longer than alone their jobs took on average (1: all alike).
    pub jain: f64,
    /// Of the time from the first arrival to the last, of all GPUs.
    pub allocated_pct: f64,
    pub preempted: u32,
    /// Done again because it was not saved.
    pub lost_gpu_h: f64,
    /// Members that were moved.
    pub moved: u32,
    /// Moved members of levels 4 and 5.
    pub moved_promised: u32,
    /// Most moves of an hour, in percent of the members that ran in the mean.
    pub moved_hour_pct: f64,
}

/// Rules that jobs are played by, side by side.
pub const RULES: [&str; 9] = [
    "fifo",
    "easy",
    "best-effort-fifo",
    "deadline",
    "deadline-preempting",
    "quota",
    "quota-strict",
    "promises",
    "promises-unbounded",
];

/// `fifo` is strict; `easy` fills in behind the head, `best-effort-fifo` past it; `deadline` is earliest deadline first;
/// `quota` is Kueue's fair sharing without pre-emption, `quota-strict` the same with each tenant's jobs strictly in turn; `promises` is ours,
/// `promises-unbounded` the same without room kept for anybody, so that nothing bounds how long one is overtaken. Traces have no bound on how many wait.
pub fn rules(name: &str, policy: &str) -> Option<Config> {
    let base = Config {
        policy: policy.to_owned(),
        order: Order::Fifo,
        pending_max: usize::MAX,
        tenant_pending_max: usize::MAX,
        preemption: false,
        reservations_max: 0,
        ..Config::default()
    };
    Some(match name {
        "fifo" => Config {
            backfill: false,
            ..base
        },
        "easy" => Config {
            reservations_max: 1,
            ..base
        },
        "best-effort-fifo" => base,
        "deadline" => Config {
            order: Order::Deadline,
            ..base
        },
        "deadline-preempting" => Config {
            order: Order::Deadline,
            preemption: true,
            ..base
        },
        "quota" => Config {
            order: Order::Quota,
            ..base
        },
        "quota-strict" => Config {
            order: Order::Quota,
            backfill: false,
            ..base
        },
        "promises" => Config {
            order: Order::Promises,
            preemption: true,
            reservations_max: Config::default().reservations_max,
            ..base
        },
        "promises-unbounded" => Config {
            order: Order::Promises,
            preemption: true,
            ..base
        },
        _ => return None,
    })
}

impl Played {
    /// All of it, with names.
    pub fn figures(&self) -> [(&'static str, f64); 23] {
        [
            ("jobs", self.jobs.into()),
            ("refused", self.refused.into()),
            ("wait_mean_s", self.wait_mean_s),
            ("wait_p50_s", self.wait_p50_s),
            ("wait_p90_s", self.wait_p90_s),
            ("wait_p95_s", self.wait_p95_s),
            ("wait_p99_s", self.wait_p99_s),
            ("wait_max_s", self.wait_max_s),
            ("wait_8gpu_mean_s", self.wait_large_mean_s),
            ("wait_8gpu_p50_s", self.wait_large_p50_s),
            ("wait_8gpu_p90_s", self.wait_large_p90_s),
            ("wait_8gpu_p99_s", self.wait_large_p99_s),
            ("completion_mean_s", self.completion_mean_s),
            ("missed_pct", self.missed_pct),
            ("best_effort_gpu_h", self.best_effort_gpu_h),
            ("best_effort_completion_s", self.best_effort_completion_s),
            ("jain", self.jain),
            ("alloc_pct", self.allocated_pct),
            ("preempted", self.preempted.into()),
            ("lost_gpu_h", self.lost_gpu_h),
            ("moved", self.moved.into()),
            ("moved_promised", self.moved_promised.into()),
            ("moved_hour_pct", self.moved_hour_pct),
        ]
    }
}

#[derive(Debug)]
struct Running {
    attempt: u32,
    since_ms: u64,
    /// Done before this start.
    saved_ms: u64,
}

struct Theatre<'a> {
    arrivals: &'a [Arrival],
    queue: Queue,
    now_ms: u64,
    last_ms: u64,
    /// When, who and at which attempt.
    ends: BinaryHeap<Reverse<(u64, u64, u32)>>,
    running: BTreeMap<JobId, Running>,
    done: Vec<Option<(u64, u64)>>,
    allocated: u128,
    members: u128,
    moves: BTreeMap<u64, u32>,
    played: Played,
}

/// Jobs have the ids 0, 1, … in the order of `arrivals`. Ends when all are done.
pub fn play(config: Config, nodes: Vec<Node>, arrivals: &[Arrival]) -> Result<Played, Refused> {
    play_between(config, nodes, arrivals, (0, u64::MAX))
}

/// The same, with an end: who waits then has waited until then. What came before the beginning is not counted, nor what comes
/// after the end.
pub fn play_between(
    config: Config,
    nodes: Vec<Node>,
    arrivals: &[Arrival],
    (from_ms, until_ms): (u64, u64),
) -> Result<Played, Refused> {
    let requests = arrivals.iter().map(|arrival| &arrival.job.request);
    let queue = Queue::knowing(config, nodes, Workload::of(requests))?;
    let mut theatre = Theatre {
        arrivals,
        queue,
        now_ms: 0,
        last_ms: arrivals.last().map_or(0, |arrival| arrival.at_ms),
        ends: BinaryHeap::new(),
        running: BTreeMap::new(),
        done: vec![None; arrivals.len()],
        allocated: 0,
        members: 0,
        moves: BTreeMap::new(),
        played: Played::default(),
    };
    let mut next = 0;
    loop {
        let coming = arrivals.get(next).map(|arrival| arrival.at_ms);
        let ending = theatre.ends.peek().map(|Reverse((at, _, _))| *at);
        let waking = theatre.queue.wake_ms(theatre.now_ms);
        let waking = waking.filter(|_| coming.is_some() || ending.is_some());
        let next_at = [coming, ending, waking].into_iter().flatten().min();
        let Some(at) = next_at.filter(|at| *at <= until_ms) else {
            break;
        };
        theatre.tick(at);
        theatre.end();
        while let Some(arrival) = arrivals.get(next).filter(|arrival| arrival.at_ms <= at) {
            theatre.played.refused +=
                u32::from(theatre.queue.submit(arrival.job.clone(), at).is_err());
            next += 1;
        }
        theatre.act()?;
    }
    if until_ms < u64::MAX {
        theatre.tick(until_ms);
    }
    Ok(theatre.finish(from_ms))
}

impl Theatre<'_> {
    fn tick(&mut self, at_ms: u64) {
        let until = at_ms.min(self.last_ms);
        let passed = u128::from(until.saturating_sub(self.now_ms));
        self.allocated += passed * u128::from(self.queue.cluster().allocated_milli());
        self.members += passed * self.running.len() as u128;
        self.now_ms = at_ms;
    }

    fn end(&mut self) {
        while let Some(Reverse((at, id, attempt))) = self.ends.peek().copied() {
            if at > self.now_ms {
                break;
            }
            self.ends.pop();
            let id = JobId(id);
            let current = self
                .running
                .get(&id)
                .is_some_and(|run| run.attempt == attempt);
            if current && self.queue.finish(id).is_ok() {
                self.running.remove(&id);
                if let Some(done) = usize::try_from(id.0)
                    .ok()
                    .and_then(|at| self.done.get_mut(at))
                    && let Some((start, _)) = *done
                {
                    *done = Some((start, at));
                }
            }
        }
    }

    /// Processes here stop and move at once.
    fn act(&mut self) -> Result<(), Refused> {
        loop {
            let actions = self.queue.step(self.now_ms);
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                match action {
                    Action::Start { job, attempt, .. } => self.start(job, attempt),
                    Action::Stop { job, .. } => self.stop(job)?,
                    Action::Move { job, .. } => {
                        self.played.moved += 1;
                        let promised = self
                            .queue
                            .get(job)
                            .is_some_and(|entry| entry.job.qos.number() >= 4);
                        self.played.moved_promised += u32::from(promised);
                        *self.moves.entry(self.now_ms / 3_600_000).or_default() += 1;
                        self.queue.moved(job)?;
                    }
                }
            }
        }
    }

    fn start(&mut self, id: JobId, attempt: u32) {
        let Some(at) = usize::try_from(id.0).ok() else {
            return;
        };
        let saved_ms = self.queue.get(id).map_or(0, |entry| entry.saved_ms);
        let left = self.arrivals[at].runs_ms.saturating_sub(saved_ms).max(1);
        let end = self.now_ms.saturating_add(left);
        self.ends.push(Reverse((end, id.0, attempt)));
        let since_ms = self.now_ms;
        self.running.insert(
            id,
            Running {
                attempt,
                since_ms,
                saved_ms,
            },
        );
        self.done[at].get_or_insert((self.now_ms, u64::MAX));
    }

    fn stop(&mut self, id: JobId) -> Result<(), Refused> {
        if let Some(run) = self.running.remove(&id)
            && let Some(entry) = self.queue.get(id)
        {
            debug_assert!(matches!(entry.phase, Phase::Stopping { .. }));
            let ran = self.now_ms - run.since_ms;
            let kept = entry.saved_ms.saturating_sub(run.saved_ms);
            let lost = ran.saturating_sub(kept) as f64 * entry.job.gpu_milli() as f64;
            self.played.lost_gpu_h += lost / 3.6e9;
            self.played.preempted += 1;
        }
        self.queue.stopped(id, self.now_ms)
    }

    fn finish(self, from_ms: u64) -> Played {
        let mut sums = Sums::default();
        let played = self.arrivals.iter().zip(&self.done);
        let between = from_ms..=self.now_ms;
        for (arrival, done) in played.filter(|(arrival, _)| between.contains(&arrival.at_ms)) {
            sums.add(arrival, *done, (self.now_ms, self.last_ms));
        }
        let mut played = sums.figures(self.played);
        let first = self.arrivals.first().map_or(0, |arrival| arrival.at_ms);
        let span = (self.last_ms - first).max(1) as f64;
        let capacity = self.queue.cluster().capacity_milli() as f64;
        played.allocated_pct = 100.0 * self.allocated as f64 / span / capacity;
        let members = self.members as f64 / span;
        let most = self.moves.values().copied().max().unwrap_or(0);
        played.moved_hour_pct = 100.0 * f64::from(most) / members.max(1.0);
        played
    }
}

/// Seconds unless it says otherwise.
#[derive(Debug, Default)]
struct Sums<'a> {
    waits: Vec<f64>,
    large: Vec<f64>,
    completions: Vec<f64>,
    best_effort: Vec<f64>,
    best_effort_gpu_h: f64,
    due: u32,
    missed: u32,
    /// By tenant: how many times longer than alone, and how many jobs.
    slowdowns: BTreeMap<&'a str, (f64, f64)>,
}

impl<'a> Sums<'a> {
    fn add(
        &mut self,
        arrival: &'a Arrival,
        done: Option<(u64, u64)>,
        (now_ms, last_ms): (u64, u64),
    ) {
        let (start, end) = done.unwrap_or((now_ms, u64::MAX));
        let wait = (start - arrival.at_ms) as f64 / 1e3;
        let took = (end.min(now_ms) - arrival.at_ms) as f64 / 1e3;
        self.waits.push(wait);
        self.completions.push(took);
        if arrival.job.gpu_milli() >= 8_000 {
            self.large.push(wait);
        }
        match arrival.job.deadline_ms {
            Some(deadline) => {
                self.due += 1;
                self.missed += u32::from(end > deadline);
            }
            None => {
                self.best_effort.push(took);
                if end <= last_ms {
                    let gpus = arrival.job.gpu_milli() as f64 / 1e3;
                    self.best_effort_gpu_h += gpus * arrival.runs_ms as f64 / 3.6e6;
                }
            }
        }
        // Jobs of a moment make any wait look long.
        let alone = (arrival.runs_ms as f64 / 1e3).max(60.0);
        let slowdown = self.slowdowns.entry(&arrival.job.tenant).or_default();
        slowdown.0 += (took / alone).max(1.0);
        slowdown.1 += 1.0;
    }

    fn figures(mut self, played: Played) -> Played {
        self.waits.sort_by(f64::total_cmp);
        self.large.sort_by(f64::total_cmp);
        let at = |percent| quantile(&self.waits, percent);
        let large = |percent| quantile(&self.large, percent);
        let speeds = self.slowdowns.values().map(|(sum, count)| count / sum);
        Played {
            jobs: u32::try_from(self.waits.len()).unwrap_or(u32::MAX),
            wait_mean_s: mean(&self.waits),
            wait_p50_s: at(50),
            wait_p90_s: at(90),
            wait_p95_s: at(95),
            wait_p99_s: at(99),
            wait_max_s: self.waits.last().copied().unwrap_or_default(),
            wait_large_mean_s: mean(&self.large),
            wait_large_p50_s: large(50),
            wait_large_p90_s: large(90),
            wait_large_p99_s: large(99),
            completion_mean_s: mean(&self.completions),
            missed_pct: 100.0 * f64::from(self.missed) / f64::from(self.due.max(1)),
            best_effort_gpu_h: self.best_effort_gpu_h,
            best_effort_completion_s: mean(&self.best_effort),
            jain: jain(&speeds.collect::<Vec<_>>()),
            ..played
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of values in order.
fn quantile(values: &[f64], percent: usize) -> f64 {
    let at = values.get(values.len() * percent / 100);
    at.copied().unwrap_or_default()
}

/// 1 when all are alike, 1/n when one has everything (Jain, Chiu and Hawe 1984).
fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    if squares > 0.0 {
        sum * sum / (values.len() as f64 * squares)
    } else {
        1.0
    }
}
