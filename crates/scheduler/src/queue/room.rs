//! Where jobs are and could be: the cluster, with each job's demand as the cluster sees it.

use std::collections::{BTreeMap, BTreeSet};

use super::action::Place;
use super::config::Config;
use super::job::{Job, JobId, Region};
use super::qos::Level;
use super::refused::Refused;
use crate::cluster::{Cluster, Node, Placement};
use crate::policy::{self, Choice, Policy, Score, View};
use crate::request::{MILLI, Request};
use crate::scheduler::Scheduler;
use crate::state::{Ask, Kinds, Slot, State};
use crate::workload::Workload;

/// Scores every new state at once: what was scored before must not decide, for a restored queue has scored nothing.
#[derive(Debug)]
struct Thorough(Box<dyn Policy>);

impl Policy for Thorough {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn view(&self) -> View {
        self.0.view()
    }

    fn choice(&self) -> Choice {
        self.0.choice()
    }

    fn score(&mut self, state: &State, ask: &Ask) -> Score {
        self.0.score(state, ask)
    }

    fn divide(&mut self, state: &State, ask: &Ask) -> Option<(i32, Slot)> {
        self.0.divide(state, ask)
    }
}

/// A member's place, and what it takes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub ask: Ask,
    pub placement: Placement,
}

#[derive(Debug)]
pub(super) struct Room {
    pub scheduler: Scheduler,
    by_name: BTreeMap<String, usize>,
    /// How often somebody gave something back: what did not fit since then does not fit now.
    pub given_back: u64,
}

impl Room {
    pub(super) fn new(
        config: &Config,
        nodes: &[Node],
        workload: &Workload,
    ) -> Result<Self, Refused> {
        let mut by_name = BTreeMap::new();
        for (at, node) in nodes.iter().enumerate() {
            if by_name.insert(node.name.clone(), at).is_some() {
                return Err(Refused::Node {
                    node: node.name.clone(),
                    problem: "there twice".to_owned(),
                });
            }
        }
        let cluster = Cluster::new(nodes.to_vec())?;
        let policy = policy::waiting(&config.policy, &cluster, workload)?;
        // The queue refuses policies that draw, so the seed decides nothing.
        let scheduler = Scheduler::new(cluster, Box::new(Thorough(policy)), 0);
        Ok(Self {
            scheduler,
            by_name,
            given_back: 0,
        })
    }

    pub(super) fn regions(&self) -> BTreeSet<&str> {
        let kinds = self.scheduler.cluster().kinds().iter();
        kinds
            .map(|kind| kind.region.as_str())
            .filter(|region| !region.is_empty())
            .collect()
    }

    /// What a member takes, on the kinds of nodes to be tried first, second and so on. Less is reserved than a slice may use
    /// by its level, and never less than keeps all limits of a device together within the over-commitment. Devices that
    /// are just large enough come first.
    pub(super) fn asks(&self, job: &Job, config: &Config) -> Vec<Ask> {
        let mut request = job.request.clone();
        if let Region::Required(region) = &job.region {
            request.regions = [region.clone()].into();
        }
        let mut asks = self.by_memory(job, &request, config);
        if let Region::Preferred(region) = &job.region {
            request.regions = [region.clone()].into();
            let mut preferred = self.by_memory(job, &request, config);
            preferred.append(&mut asks);
            asks = preferred;
        }
        asks
    }

    fn by_memory(&self, job: &Job, request: &Request, config: &Config) -> Vec<Ask> {
        let all = self.scheduler.ask(request);
        if request.gpus == 0 {
            return vec![all];
        }
        let reserved = |asked: u32| reserved_milli(asked, job.qos, config);
        if job.device_memory_mib == 0 {
            let milli = if request.shares() {
                reserved(request.gpu_milli.into())
            } else {
                all.milli
            };
            return vec![Ask { milli, ..all }];
        }
        let kinds = self.scheduler.cluster().kinds();
        let sizes: BTreeSet<u32> = kinds.iter().map(|kind| kind.gpu_memory_mib).collect();
        let enough = sizes.range(job.device_memory_mib..);
        let asks = enough.map(|size| {
            let of_size = (0_u16..)
                .zip(kinds)
                .map(|(at, kind)| kind.gpu_memory_mib == *size && all.kinds.contains(at));
            let memory = u64::from(job.device_memory_mib) * u64::from(MILLI);
            let part = u32::try_from(memory.div_ceil((*size).into())).unwrap_or(u32::MAX);
            let milli = if request.shares() {
                reserved(part.max(request.gpu_milli.into()))
            } else {
                all.milli
            };
            Ask {
                milli,
                kinds: Kinds::of(of_size),
                ..all
            }
        });
        asks.collect()
    }

    /// All members, or none. Members are alike, so the first that does not fit is the end; how many did is the error.
    pub(super) fn place(&mut self, asks: &[Ask], gang: u32) -> Result<Vec<Taken>, u32> {
        let mut taken: Vec<Taken> = Vec::new();
        for member in 0..gang {
            let placed = asks.iter().find_map(|ask| {
                let placed = self.scheduler.place(ask)?;
                Some(Taken {
                    ask: *ask,
                    placement: placed.placement,
                })
            });
            let Some(placed) = placed else {
                self.take_back(&taken);
                return Err(member);
            };
            taken.push(placed);
        }
        Ok(taken)
    }

    pub(super) fn give_back(&mut self, taken: &[Taken]) {
        self.given_back += 1;
        self.take_back(taken);
    }

    fn take_back(&mut self, taken: &[Taken]) {
        for taken in taken {
            self.scheduler.release(&taken.ask, &taken.placement);
        }
    }

    pub(super) fn occupy(&mut self, taken: &[Taken]) -> Result<(), Refused> {
        for (at, member) in taken.iter().enumerate() {
            if let Err(error) = self.scheduler.occupy(&member.ask, &member.placement) {
                self.take_back(&taken[..at]);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// All members would fit if nothing ran.
    pub(super) fn possible(&self, asks: &[Ask], gang: u32) -> bool {
        let cluster = self.scheduler.cluster();
        let nodes = cluster.nodes().iter().zip(cluster.states());
        let idle = nodes.map(|(node, state)| {
            let mut idle = *state;
            idle.cpu_milli = node.cpu_milli;
            idle.memory_mib = node.memory_mib;
            idle.free[..usize::from(node.gpus)].fill(MILLI);
            idle.divided.fill(0);
            idle
        });
        let times = idle.map(|state| {
            let each = asks.iter().map(|ask| ask.times(&state));
            u64::from(each.max().unwrap_or(0))
        });
        times.sum::<u64>() >= u64::from(gang)
    }

    /// Whose stopping these places have to wait for: on their nodes there is less room than what is being freed there.
    pub(super) fn held_up(
        &self,
        taken: &[Taken],
        draining: &BTreeMap<JobId, Vec<Taken>>,
    ) -> BTreeSet<JobId> {
        let nodes: BTreeSet<_> = taken.iter().map(|taken| taken.placement.node).collect();
        let mut waits_for = BTreeSet::new();
        for node in nodes {
            let mut free = self.scheduler.cluster().states()[node];
            let mut there = Vec::new();
            let mut short = false;
            for (job, members) in draining {
                for member in members
                    .iter()
                    .filter(|member| member.placement.node == node)
                {
                    there.push(*job);
                    let cpu = free.cpu_milli.checked_sub(member.ask.cpu_milli);
                    let memory = free.memory_mib.checked_sub(member.ask.memory_mib);
                    short |= cpu.is_none() || memory.is_none();
                    free.cpu_milli = cpu.unwrap_or(0);
                    free.memory_mib = memory.unwrap_or(0);
                    for gpu in &member.placement.gpus {
                        let room = &mut free.free[usize::from(*gpu)];
                        short |= *room < member.ask.milli;
                        *room = room.saturating_sub(member.ask.milli);
                    }
                }
            }
            if short {
                waits_for.extend(there);
            }
        }
        waits_for
    }

    pub(super) fn place_of(&self, taken: &Taken) -> Place {
        let node = &self.scheduler.cluster().nodes()[taken.placement.node];
        let memory = u64::from(node.gpu_memory_mib) * u64::from(taken.ask.milli) / u64::from(MILLI);
        Place {
            node: node.name.clone(),
            gpus: taken.placement.gpus.clone(),
            mig_slice: taken.placement.slice,
            gpu_milli: taken.ask.milli,
            memory_mib: u32::try_from(memory).unwrap_or(u32::MAX),
        }
    }

    /// What a member takes at a place it has been given before; nothing when the node is gone.
    pub(super) fn taken(&self, asks: &[Ask], job: &Job, place: &Place) -> Option<Taken> {
        let node = *self.by_name.get(&place.node)?;
        // Of the forms of its demand the one for this kind of node, so that where it may be moved is as before.
        let kind = self.scheduler.cluster().states()[node].kind;
        let form = asks.iter().find(|ask| ask.kinds.contains(kind));
        let form = form.copied();
        let ask = Ask {
            milli: place.gpu_milli,
            ..form.unwrap_or_else(|| self.scheduler.ask(&job.request))
        };
        Some(Taken {
            ask,
            placement: Placement {
                node,
                gpus: place.gpus.clone(),
                slice: place.mig_slice,
            },
        })
    }
}

/// Of a slice that may use `asked` thousandths of a device.
fn reserved_milli(asked: u32, level: Level, config: &Config) -> u16 {
    let percent = u32::from(config.qos.of(level).reserved_percent);
    let asked = asked.min(MILLI.into());
    let by_level = (asked * percent).div_ceil(100);
    let by_limit = (asked * 100).div_ceil(config.overcommit_percent.into());
    let reserved = by_level.max(by_limit).clamp(1, MILLI.into());
    u16::try_from(reserved).unwrap_or(MILLI)
}
