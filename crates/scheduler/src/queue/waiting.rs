//! Jobs that wait, in groups that stand alike: of one tenant, for the same places, with the same promise. What holds back one
//! of a group holds back those behind it, unless they are shorter, so a step looks at groups and not at jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::action::Wait;
use super::config::{Amounts, Config, Order};
use super::entry::Entry;
use super::job::{JobId, Priority};
use super::order;
use super::qos::Level;
use crate::hash::Fast;
use crate::state::Ask;

/// All that decides what may become of a job, but for when it came and how long it takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Alike {
    pub tenant: String,
    pub asks: Vec<Ask>,
    pub gang: u32,
    amounts: Amounts,
    priority: Priority,
    qos: Level,
    pub stage: Stage,
}

/// What time makes of a job that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stage {
    /// Nothing overtakes it any more.
    pub starves: bool,
    /// Its deadline is lost.
    pub lapsed: bool,
    /// Its deadline can wait.
    pub early: bool,
}

/// Among those that stand alike; lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    urgent_ms: u64,
    /// Where the shortest goes first.
    shortest_ms: u64,
    submitted_ms: u64,
    pub id: JobId,
}

impl Alike {
    /// As [`order::keeps_room`] has it.
    pub(super) fn keeps_room(&self, config: &Config) -> bool {
        config.order != Order::Promises
            || self.stage.starves
            || self.priority == Priority::Realtime && !self.stage.lapsed
    }
}

#[derive(Debug)]
struct Group {
    alike: Alike,
    /// With how long each takes; the longest there is when that is not known.
    members: BTreeMap<Turn, u64>,
    /// Why those wait that were passed over, and in which round that was.
    told: Option<(u64, Wait)>,
}

#[derive(Debug)]
struct Member {
    group: usize,
    turn: Turn,
    moments: [Option<(u64, Moment)>; 3],
    /// The last round in which it was looked at by itself.
    tried: u64,
}

/// When a job's stage changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Bound,
    LastStart,
    Lapse,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    groups: Vec<Group>,
    unused: Vec<usize>,
    by_alike: HashMap<Alike, usize, Fast>,
    members: BTreeMap<JobId, Member>,
    moments: BTreeSet<(u64, Moment, JobId)>,
}

impl Waiting {
    /// Takes a job that waits, as it stands at this moment or before.
    pub(super) fn enter(&mut self, entry: &Entry, asks: &[Ask], config: &Config, now_ms: u64) {
        let id = entry.job.id;
        let stage = stage(entry, config, now_ms);
        let alike = Alike {
            tenant: entry.job.tenant.clone(),
            asks: asks.to_vec(),
            gang: entry.job.gang,
            amounts: Amounts::of(&entry.job),
            priority: entry.job.priority,
            qos: entry.job.qos,
            stage,
        };
        let turn = Turn {
            urgent_ms: urgent_ms(entry, config, stage),
            shortest_ms: if config.order == Order::Promises && !stage.starves {
                entry.remaining_ms().unwrap_or(u64::MAX)
            } else {
                0
            },
            submitted_ms: entry.submitted_ms,
            id,
        };
        let group = self.group(alike);
        let takes_ms = entry.remaining_ms().unwrap_or(u64::MAX);
        self.groups[group].members.insert(turn, takes_ms);
        let moments = [
            Some((order::bound_ms(entry, config), Moment::Bound)),
            order::last_start_ms(entry).map(|at| (at, Moment::LastStart)),
            order::lapse_ms(entry).map(|at| (at, Moment::Lapse)),
        ];
        let moments = moments.map(|moment| moment.filter(|(at, _)| *at > now_ms));
        for (at, moment) in moments.into_iter().flatten() {
            self.moments.insert((at, moment, id));
        }
        let member = Member {
            group,
            turn,
            moments,
            tried: 0,
        };
        self.members.insert(id, member);
    }

    fn group(&mut self, alike: Alike) -> usize {
        if let Some(known) = self.by_alike.get(&alike) {
            return *known;
        }
        let group = Group {
            alike: alike.clone(),
            members: BTreeMap::new(),
            told: None,
        };
        let at = if let Some(unused) = self.unused.pop() {
            self.groups[unused] = group;
            unused
        } else {
            self.groups.push(group);
            self.groups.len() - 1
        };
        self.by_alike.insert(alike, at);
        at
    }

    pub(super) fn leave(&mut self, id: JobId) {
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        for (at, moment) in member.moments.into_iter().flatten() {
            self.moments.remove(&(at, moment, id));
        }
        let group = &mut self.groups[member.group];
        group.members.remove(&member.turn);
        if group.members.is_empty() {
            group.told = None;
            self.by_alike.remove(&group.alike);
            self.unused.push(member.group);
        }
    }

    /// Those whose stage has changed by now; told once.
    pub(super) fn due(&mut self, now_ms: u64) -> BTreeSet<JobId> {
        let mut due = BTreeSet::new();
        while let Some(first) = self
            .moments
            .first()
            .copied()
            .filter(|(at, ..)| *at <= now_ms)
        {
            self.moments.remove(&first);
            due.insert(first.2);
        }
        due
    }

    /// When a step is due although nothing else happens.
    pub(super) fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let later = (now_ms.saturating_add(1), Moment::Bound, JobId(0));
        let mut later = self.moments.range(later..);
        // A deadline that is lost makes nobody start.
        let wakes = later.find(|(_, moment, _)| *moment != Moment::Lapse);
        wakes.map(|(at, ..)| *at)
    }

    /// Those groups that have somebody, and the first of each.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (usize, Turn)> {
        let groups = self.groups.iter().enumerate();
        groups.filter_map(|(at, group)| Some((at, *group.members.keys().next()?)))
    }

    pub(super) fn first(&self, group: usize) -> Option<JobId> {
        Some(self.groups[group].members.keys().next()?.id)
    }

    pub(super) fn alike(&self, group: usize) -> &Alike {
        &self.groups[group].alike
    }

    pub(super) fn group_of(&self, id: JobId) -> Option<usize> {
        Some(self.members.get(&id)?.group)
    }

    /// Those behind, and how long each takes.
    pub(super) fn behind(&self, group: usize, turn: Turn) -> impl Iterator<Item = (Turn, u64)> {
        let members = &self.groups[group].members;
        let behind = members.range((Bound::Excluded(turn), Bound::Unbounded));
        behind.map(|(turn, takes_ms)| (*turn, *takes_ms))
    }

    /// It has been looked at by itself, and its entry says why it waits.
    pub(super) fn tried(&mut self, id: JobId, round: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.tried = round;
        }
    }

    /// Why those of a group wait that are not looked at in this round.
    pub(super) fn tell(&mut self, group: usize, round: u64, wait: Wait) {
        let group = &mut self.groups[group];
        if !group.members.is_empty() {
            group.told = Some((round, wait));
        }
    }

    /// What its group was told since it was last looked at by itself.
    pub(super) fn told(&self, id: JobId) -> Option<&Wait> {
        let member = self.members.get(&id)?;
        let (round, wait) = self.groups[member.group].told.as_ref()?;
        (*round > member.tried).then_some(wait)
    }
}

fn stage(entry: &Entry, config: &Config, now_ms: u64) -> Stage {
    Stage {
        starves: order::starves(entry, config, now_ms),
        lapsed: order::lapsed(entry, now_ms),
        early: order::last_start_ms(entry).is_some_and(|last| now_ms < last),
    }
}

/// The part of the [key](order::key) in which those of a group differ, beside arrival and id.
fn urgent_ms(entry: &Entry, config: &Config, stage: Stage) -> u64 {
    let deadline = entry.job.deadline_ms;
    match config.order {
        Order::Fifo | Order::Quota => 0,
        Order::Deadline => deadline.unwrap_or(u64::MAX),
        Order::Promises if stage.starves => order::bound_ms(entry, config),
        Order::Promises => deadline.filter(|_| !stage.lapsed).unwrap_or(u64::MAX),
    }
}
