//! Jobs that wait, in groups that stand alike: of one tenant, for the same places, with the same promise. What holds back one
//! of a group holds back those behind it, unless they are shorter, so a step looks at groups and not at jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::action::Wait;
use super::config::{Amounts, Config, Order};
use super::entry::Entry;
use super::job::{JobId, Priority};
use super::order::{self, Haste};
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
    pub haste: Haste,
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
    pub(super) fn keeps_room(&self, config: &Config) -> bool {
        order::keeps_room(self.priority, self.haste, config)
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
    moments: [Option<(u64, Moment)>; 2],
    bound_ms: u64,
    /// The last round in which it was looked at by itself.
    tried: u64,
}

/// When a job's haste changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
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
    /// When each has waited to its bound.
    bounds: BTreeSet<(u64, JobId)>,
}

impl Waiting {
    /// Takes a job that waits, as it stands at this moment or before.
    pub(super) fn enter(&mut self, entry: &Entry, asks: &[Ask], config: &Config, now_ms: u64) {
        let id = entry.job.id;
        let haste = order::haste(entry, now_ms);
        let alike = Alike {
            tenant: entry.job.tenant.clone(),
            asks: asks.to_vec(),
            gang: entry.job.gang,
            amounts: Amounts::of(&entry.job),
            priority: entry.job.priority,
            qos: entry.job.qos,
            haste,
        };
        let turn = Turn {
            urgent_ms: urgent_ms(entry, config, haste),
            shortest_ms: if config.order == Order::Promises {
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
            order::last_start_ms(entry).map(|at| (at, Moment::LastStart)),
            order::lapse_ms(entry).map(|at| (at, Moment::Lapse)),
        ];
        let moments = moments.map(|moment| moment.filter(|(at, _)| *at > now_ms));
        for (at, moment) in moments.into_iter().flatten() {
            self.moments.insert((at, moment, id));
        }
        let bound_ms = order::bound_ms(entry, config);
        self.bounds.insert((bound_ms, id));
        let member = Member {
            group,
            turn,
            moments,
            bound_ms,
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
        self.bounds.remove(&(member.bound_ms, id));
        let group = &mut self.groups[member.group];
        group.members.remove(&member.turn);
        if group.members.is_empty() {
            group.told = None;
            self.by_alike.remove(&group.alike);
            self.unused.push(member.group);
        }
    }

    /// Those whose haste has changed by now; told once.
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
        let next_ms = now_ms.saturating_add(1);
        let moments = self.moments.range((next_ms, Moment::LastStart, JobId(0))..);
        let bounds = self.bounds.range((next_ms, JobId(0))..);
        let moment = moments.map(|(at, ..)| *at).next();
        let bound = bounds.map(|(at, _)| *at).next();
        moment.into_iter().chain(bound).min()
    }

    /// Those that have waited to their bounds, the earliest bound first.
    pub(super) fn past(&self, now_ms: u64) -> impl Iterator<Item = JobId> {
        let past = self.bounds.iter().take_while(move |(at, _)| *at <= now_ms);
        past.map(|(_, id)| *id)
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

/// The part of the [key](order::key) in which those of a group differ, beside arrival and id.
fn urgent_ms(entry: &Entry, config: &Config, haste: Haste) -> u64 {
    let deadline = entry.job.deadline_ms;
    match config.order {
        Order::Fifo | Order::Quota => 0,
        Order::Deadline => deadline.unwrap_or(u64::MAX),
        Order::Promises => deadline
            .filter(|_| haste != Haste::Lapsed)
            .unwrap_or(u64::MAX),
    }
}
