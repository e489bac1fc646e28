//! Requests that come, wait when nothing is free for them, run and leave.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};

use crate::cluster::{Cluster, Node, Placement};
use crate::error::Error;
use crate::hash::Fast;
use crate::policy::{self, Policy};
use crate::queue::Job;
use crate::request::Request;
use crate::rng::Rng;
use crate::scheduler::Scheduler;
use crate::simulate::jobs;
use crate::state::Ask;
use crate::trace::Pod;
use crate::workload::Workload;

/// Requests that wait at most; those beyond are dropped and counted.
const QUEUE_MAX: usize = 100_000;

/// Arrivals of one simulation.
const ARRIVALS_MAX: f64 = 4e6;

/// Seconds in a nanosecond's steps, so that moments are exact and ordered.
const PER_SECOND: f64 = 1e9;

const DAY_S: f64 = 86_400.0;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrival {
    at_ns: u64,
    runs_ns: u64,
    request: Request,
}

/// Nobody jumps the queue, but who waits for what is not there holds up nobody else.
#[derive(Debug, Clone)]
pub struct Churn {
    pub cluster: Cluster,
    pub workload: Workload,
    arrivals: Vec<Arrival>,
    /// Before this nothing is measured.
    warm_ns: u64,
    end_ns: u64,
    seed: u64,
}

/// Of the time after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stay {
    pub arrived: u32,
    /// Of those, placed before the end.
    pub placed: u32,
    /// Because the queue was full.
    pub dropped: u32,
    /// Mean over time, of all GPUs.
    pub allocated_pct: f64,
    /// Of those placed; who still waits at the end counts until then.
    pub wait_mean_s: f64,
    pub wait_p50_s: f64,
    pub wait_p95_s: f64,
    /// Of requests for eight GPUs or more.
    pub wait_large_mean_s: f64,
}

impl Churn {
    /// The trace's own moments; pods without them are left out, and those without an end stay.
    pub fn trace(nodes: &[Node], pods: &[Pod], seed: u64) -> Result<Self, Error> {
        let known = pods.iter().filter_map(|pod| Some((pod, pod.created_s?)));
        let first = known
            .clone()
            .map(|(_, created)| created)
            .fold(f64::MAX, f64::min);
        let arrivals = known.map(|(pod, created)| Arrival {
            at_ns: nanoseconds(created - first),
            runs_ns: pod
                .deleted_s
                .map_or(u64::MAX, |deleted| nanoseconds(deleted - created)),
            request: pod.request.clone(),
        });
        Self::new(nodes, pods, arrivals.collect(), (0, None), seed)
    }

    /// Pods drawn with their durations, at a rate that asks for `load` of the cluster's GPUs; the first seventh of the time
    /// is not measured.
    pub fn poisson(
        nodes: &[Node],
        pods: &[Pod],
        load: f64,
        days: f64,
        seed: u64,
    ) -> Result<Self, Error> {
        let drawn = drawn(nodes, pods, (load, days), seed)?;
        let arrivals = drawn.into_iter().map(|drawn| Arrival {
            at_ns: nanoseconds(drawn.at_s),
            runs_ns: nanoseconds(drawn.runs_s),
            request: drawn.pod.request.clone(),
        });
        let (arrivals, end) = (arrivals.collect(), days * DAY_S);
        let times = (nanoseconds(end / 7.0), Some(nanoseconds(end)));
        Self::new(nodes, pods, arrivals, times, seed)
    }

    fn new(
        nodes: &[Node],
        pods: &[Pod],
        mut arrivals: Vec<Arrival>,
        (warm_ns, end_ns): (u64, Option<u64>),
        seed: u64,
    ) -> Result<Self, Error> {
        arrivals.sort_by_key(|arrival| arrival.at_ns);
        let last = arrivals.last().ok_or(Error::NoArrivals)?.at_ns;
        let mut nodes = nodes.to_vec();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        // The order of nodes has a stream of its own: arrivals took numbers from the seed's.
        Rng::new(!seed).shuffle(&mut nodes);
        Ok(Self {
            cluster: Cluster::new(nodes)?,
            workload: Workload::of(pods.iter().map(|pod| &pod.request)),
            arrivals,
            warm_ns,
            end_ns: end_ns.unwrap_or(last),
            seed,
        })
    }

    pub fn policy(&self, name: &str) -> Result<Box<dyn Policy>, Error> {
        policy::by_name(name, &self.cluster, &self.workload)
    }

    pub fn run(&self, policy: Box<dyn Policy>) -> Stay {
        let mut world = World {
            scheduler: Scheduler::new(self.cluster.clone(), policy, self.seed),
            churn: self,
            ends: BinaryHeap::new(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            hopeless: HashSet::default(),
            now_ns: 0,
            area: 0.0,
            waits: Vec::new(),
            stay: Stay::default(),
        };
        for (index, arrival) in self.arrivals.iter().enumerate() {
            world.pass(arrival.at_ns);
            world.arrive(index);
        }
        world.pass(self.end_ns);
        world.finish()
    }
}

struct World<'a> {
    churn: &'a Churn,
    scheduler: Scheduler,
    /// When, and an index into `running`.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    running: Vec<Option<(Ask, Placement)>>,
    /// Indices of arrivals.
    waiting: VecDeque<usize>,
    /// Did not fit since something last left.
    hopeless: HashSet<Ask, Fast>,
    now_ns: u64,
    area: f64,
    /// Seconds, and whether it was a large one.
    waits: Vec<(f64, bool)>,
    stay: Stay,
}

impl World<'_> {
    /// Until then, who is done leaves, and who waits takes the place.
    fn pass(&mut self, until_ns: u64) {
        while let Some(Reverse((at, index))) = self.ends.peek().copied() {
            if at > until_ns {
                break;
            }
            self.ends.pop();
            self.tick(at);
            if let Some((ask, placement)) = self.running[index].take() {
                self.scheduler.release(&ask, &placement);
            }
            // All that leave now have left before others are tried.
            let more = self
                .ends
                .peek()
                .is_some_and(|Reverse((next, _))| *next == at);
            if !more {
                self.hopeless.clear();
                let waiting = std::mem::take(&mut self.waiting);
                self.waiting = waiting
                    .into_iter()
                    .filter(|index| !self.start(*index))
                    .collect();
            }
        }
        self.tick(until_ns);
    }

    fn tick(&mut self, at_ns: u64) {
        let at_ns = at_ns.min(self.churn.end_ns);
        let from = self.now_ns.max(self.churn.warm_ns);
        if at_ns > from {
            let allocated = self.scheduler.cluster().allocated_milli() as f64;
            self.area += allocated * (at_ns - from) as f64;
        }
        self.now_ns = self.now_ns.max(at_ns);
    }

    fn arrive(&mut self, index: usize) {
        let ask = self.scheduler.ask(&self.churn.arrivals[index].request);
        self.scheduler.arrive(&ask);
        let counts = self.now_ns >= self.churn.warm_ns;
        self.stay.arrived += u32::from(counts);
        if self.start(index) {
            return;
        }
        if self.waiting.len() < QUEUE_MAX {
            self.waiting.push_back(index);
        } else {
            self.stay.dropped += u32::from(counts);
        }
    }

    fn start(&mut self, index: usize) -> bool {
        let arrival = &self.churn.arrivals[index];
        let ask = self.scheduler.ask(&arrival.request);
        if self.hopeless.contains(&ask) {
            return false;
        }
        let Some(placed) = self.scheduler.place(&ask) else {
            self.hopeless.insert(ask);
            return false;
        };
        let end = self.now_ns.saturating_add(arrival.runs_ns);
        self.ends.push(Reverse((end, self.running.len())));
        self.running.push(Some((ask, placed.placement)));
        if arrival.at_ns >= self.churn.warm_ns {
            self.stay.placed += 1;
            self.waited(index);
        }
        true
    }

    fn waited(&mut self, index: usize) {
        let arrival = &self.churn.arrivals[index];
        let seconds = (self.now_ns - arrival.at_ns) as f64 / PER_SECOND;
        self.waits.push((seconds, arrival.request.gpus >= 8));
    }

    fn finish(mut self) -> Stay {
        for index in std::mem::take(&mut self.waiting) {
            if self.churn.arrivals[index].at_ns >= self.churn.warm_ns {
                self.waited(index);
            }
        }
        let measured = self.churn.end_ns.saturating_sub(self.churn.warm_ns) as f64;
        let capacity = self.scheduler.cluster().capacity_milli() as f64;
        let mean = |waits: &mut dyn Iterator<Item = f64>| {
            let (sum, count) =
                waits.fold((0.0, 0.0), |(sum, count), wait| (sum + wait, count + 1.0));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        self.waits.sort_by(|left, right| left.0.total_cmp(&right.0));
        let at = |percent: usize| {
            let index = self.waits.len() * percent / 100;
            self.waits.get(index).map_or(0.0, |(wait, _)| *wait)
        };
        let large = self.waits.iter().filter(|(_, large)| *large);
        Stay {
            allocated_pct: if measured > 0.0 {
                100.0 * self.area / measured / capacity
            } else {
                0.0
            },
            wait_mean_s: mean(&mut self.waits.iter().map(|(wait, _)| *wait)),
            wait_p50_s: at(50),
            wait_p95_s: at(95),
            wait_large_mean_s: mean(&mut large.map(|(wait, _)| *wait)),
            ..self.stay
        }
    }
}

/// A pod of a list, when it comes and how long it runs.
struct Drawn<'a> {
    pod: &'a Pod,
    at_s: f64,
    runs_s: f64,
}

/// Pods drawn with their durations, at a rate that asks for `load` of the nodes' GPUs for so many days. The first are there
/// at the beginning, as many as there would be after a long time: some run for months, and what they hold would be missing.
fn drawn<'a>(
    nodes: &[Node],
    pods: &'a [Pod],
    (load, days): (f64, f64),
    seed: u64,
) -> Result<Vec<Drawn<'a>>, Error> {
    let lasting: Vec<(&Pod, f64)> = pods
        .iter()
        .filter_map(|pod| Some((pod, pod.deleted_s? - pod.created_s?)))
        .filter(|(_, seconds)| *seconds > 0.0)
        .collect();
    let work = lasting
        .iter()
        .map(|(pod, seconds)| f64::from(pod.request.total_gpu_milli()) * seconds);
    let mean = work.sum::<f64>() / lasting.len().max(1) as f64;
    let capacity: f64 = nodes
        .iter()
        .map(|node| f64::from(node.gpus) * 1_000.0)
        .sum();
    let rate = load * capacity / mean;
    let end = days * DAY_S;
    let stay =
        lasting.iter().map(|(_, seconds)| seconds).sum::<f64>() / lasting.len().max(1) as f64;
    let mut drawn = Vec::new();
    if rate.is_finite() && rate * (end + stay) <= ARRIVALS_MAX && rate > 0.0 {
        let mut rng = Rng::new(seed);
        drawn = running(&lasting, rate * stay, &mut rng);
        let mut at_s = rng.exponential(1.0 / rate);
        while at_s < end {
            let (pod, runs_s) = lasting[rng.below(lasting.len())];
            drawn.push(Drawn { pod, at_s, runs_s });
            at_s += rng.exponential(1.0 / rate);
        }
    }
    if drawn.is_empty() {
        return Err(Error::NoArrivals);
    }
    Ok(drawn)
}

/// Whom an observer finds who comes at some moment: each with a chance in proportion to how long it runs, and at a moment of
/// that which is as likely as any other (the inspection paradox of renewal theory).
fn running<'a>(lasting: &[(&'a Pod, f64)], count: f64, rng: &mut Rng) -> Vec<Drawn<'a>> {
    let mut sum = 0.0;
    let sums: Vec<f64> = lasting
        .iter()
        .map(|(_, seconds)| {
            sum += seconds;
            sum
        })
        .collect();
    let mut found = Vec::new();
    while (found.len() as f64) < count {
        let at = rng.unit() * sum;
        let index = sums.partition_point(|sum| *sum <= at);
        let Some((pod, seconds)) = lasting.get(index) else {
            continue;
        };
        found.push(Drawn {
            pod,
            at_s: 0.0,
            runs_s: seconds * rng.unit(),
        });
    }
    found
}

/// The pods of [`Churn::poisson`] as jobs for a queue: those of levels below 4 may be stopped and moved. How long each runs
/// is known to the queue.
pub fn jobs(
    nodes: &[Node],
    pods: &[Pod],
    (load, days): (f64, f64),
    seed: u64,
) -> Result<Vec<jobs::Arrival>, Error> {
    let arrivals = (0..).zip(drawn(nodes, pods, (load, days), seed)?);
    let arrivals = arrivals.map(|(id, drawn)| {
        let runs_ms = milliseconds(drawn.runs_s);
        jobs::Arrival {
            at_ms: milliseconds(drawn.at_s),
            runs_ms,
            job: Job {
                qos: drawn.pod.qos,
                expected_ms: Some(runs_ms),
                preemptible: drawn.pod.qos.number() < 4,
                ..Job::new(id, drawn.pod.request.clone())
            },
        }
    });
    Ok(arrivals.collect())
}

fn milliseconds(seconds: f64) -> u64 {
    nanoseconds(seconds) / 1_000_000
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of floats saturates: a moment beyond 584 years is never"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * PER_SECOND).round() as u64
}

#[cfg(test)]
mod tests;
