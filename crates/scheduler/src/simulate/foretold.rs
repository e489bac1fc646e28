//! Explanations held against what becomes of the jobs: every change that is told is applied to a copy of the queue, every
//! estimate is compared with the wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::cluster::Node;
use crate::queue::foretell::{Estimate, History};
use crate::queue::{Action, Config, Job, JobId, Phase, Queue, Refused};
use crate::rng::Rng;
use crate::trace::Pod;
use crate::workload::Workload;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Foretelling {
    /// GPUs asked for at a time, as a share of all there are.
    pub load: f64,
    pub jobs: u64,
    /// Of the jobs that have to wait, each so-many-th is explained.
    pub each: u64,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Foretold {
    pub explained: u32,
    /// With something else to ask for.
    pub advised: u32,
    /// Changes that were told, and those after which the whole queue starts the job.
    pub told: u32,
    pub kept: u32,
    /// Estimates of jobs that have started, and how many did in time.
    pub estimated: u32,
    pub within_p50: u32,
    pub within_p90: u32,
}

/// Estimates that the history learns from before they are counted.
const LEARNED: u32 = 60;

/// Pods that ran longer are left out: with those that ran for months the queue would never settle.
const RUNS_S_MAX: f64 = 7_200.0;

impl Foretelling {
    /// Jobs come at random moments, each as one of the pods and as long.
    pub fn run(&self, nodes: Vec<Node>, pods: &[Pod]) -> Result<Foretold, Refused> {
        let lasting: Vec<(&Pod, f64)> = pods
            .iter()
            .filter_map(|pod| Some((pod, pod.deleted_s? - pod.created_s?)))
            .filter(|(_, seconds)| *seconds > 0.0 && *seconds <= RUNS_S_MAX)
            .collect();
        let work = lasting
            .iter()
            .map(|(pod, seconds)| f64::from(pod.request.total_gpu_milli()) * seconds);
        let mean = work.sum::<f64>() / lasting.len().max(1) as f64;
        let gpus: u32 = nodes.iter().map(|node| u32::from(node.gpus)).sum();
        let between = mean / (self.load * f64::from(gpus) * 1_000.0);
        let workload = Workload::of(pods.iter().map(|pod| &pod.request));
        let config = Config {
            policy: "bestfit".to_owned(),
            ..Config::default()
        };
        let mut world = World {
            queue: Queue::knowing(config, nodes, workload)?,
            history: History::default(),
            runs_ms: BTreeMap::new(),
            ends: BinaryHeap::new(),
            told: BTreeMap::new(),
            seen: 0,
            foretold: Foretold::default(),
        };
        if lasting.is_empty() {
            return Ok(world.foretold);
        }
        let mut rng = Rng::new(self.seed);
        let (mut at_s, mut waiting) = (0.0, 0);
        for id in 0..self.jobs {
            at_s += rng.exponential(between);
            let now_ms = milliseconds(at_s);
            let (pod, seconds) = lasting[rng.below(lasting.len())];
            world.pass(now_ms)?;
            world.runs_ms.insert(id, milliseconds(seconds) + 1);
            world
                .queue
                .submit(Job::new(id, pod.request.clone()), now_ms)?;
            world.step(now_ms);
            let entry = world.queue.get(JobId(id));
            if entry.is_some_and(|entry| matches!(entry.phase, Phase::Pending { .. })) {
                waiting += 1;
                if waiting % self.each.max(1) == 0 {
                    world.explain(id, now_ms)?;
                }
            }
        }
        world.pass(u64::MAX)?;
        Ok(world.foretold)
    }
}

struct World {
    queue: Queue,
    history: History,
    runs_ms: BTreeMap<u64, u64>,
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    told: BTreeMap<u64, (u64, Estimate)>,
    seen: u32,
    foretold: Foretold,
}

impl World {
    fn pass(&mut self, until_ms: u64) -> Result<(), Refused> {
        while let Some(Reverse((at_ms, id))) = self.ends.peek().copied()
            && at_ms <= until_ms
        {
            self.ends.pop();
            if let (Some(entry), Some(runs_ms)) = (self.queue.get(JobId(id)), self.runs_ms.get(&id))
            {
                self.history.finished(&entry.job, *runs_ms);
            }
            self.queue.finish(JobId(id))?;
            self.step(at_ms);
        }
        Ok(())
    }

    fn step(&mut self, now_ms: u64) {
        for id in starts(&self.queue.step(now_ms)) {
            let runs_ms = self.runs_ms.get(&id).copied().unwrap_or_default();
            self.ends.push(Reverse((now_ms + runs_ms, id)));
            let Some((since_ms, estimate)) = self.told.remove(&id) else {
                continue;
            };
            let waited = now_ms - since_ms;
            self.history.waited(&estimate, waited);
            self.seen += 1;
            if self.seen > LEARNED {
                self.foretold.estimated += 1;
                self.foretold.within_p50 += u32::from(waited <= estimate.p50_ms);
                self.foretold.within_p90 += u32::from(waited <= estimate.p90_ms);
            }
        }
    }

    fn explain(&mut self, id: u64, now_ms: u64) -> Result<(), Refused> {
        let Some(entry) = self.queue.get(JobId(id)) else {
            return Ok(());
        };
        let asked = entry.job.clone();
        let said = self.queue.explain(JobId(id), now_ms, &self.history)?;
        self.foretold.explained += 1;
        self.foretold.advised += u32::from(!said.instead.is_empty());
        for instead in &said.instead {
            let changes = instead.changes.iter();
            let changed = changes.fold(asked.clone(), |job, change| change.apply(&job));
            let mut saved = self.queue.save();
            for entry in &mut saved.entries {
                if entry.job.id.0 == id {
                    entry.job = changed.clone();
                }
            }
            let mut replayed = Queue::restore(self.queue.config().clone(), saved)?;
            self.foretold.told += 1;
            self.foretold.kept += u32::from(starts(&replayed.step(now_ms)).contains(&id));
        }
        self.told
            .extend(said.starts.map(|estimate| (id, (now_ms, estimate))));
        Ok(())
    }
}

/// Ids of jobs that are told to start.
fn starts(actions: &[Action]) -> Vec<u64> {
    let starts = actions
        .iter()
        .filter(|action| matches!(action, Action::Start { .. }));
    starts.map(|action| action.job().0).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some days"
)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}
