//! Who starts now: groups of those that stand alike take turns, and who is held back by what holds back others is passed over.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::Queue;
use super::action::{Action, Wait};
use super::entry::Phase;
use super::job::JobId;
use super::order::{self, Haste, Key, Standing};
use super::round::{Round, SEARCHES_MAX};
use super::waiting::Turn;

/// The next of a group.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    key: Key,
    turn: Turn,
    group: usize,
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    nexts: BinaryHeap<Reverse<Next>>,
    /// By group, as they were when the step began: what starts meanwhile does not change the order.
    standings: Vec<Option<Standing>>,
    /// Groups passed over from this one on.
    passed: Vec<(usize, Turn)>,
}

impl Queue {
    /// What is to be done now. Asked again at the same moment, there is nothing more to do.
    pub fn step(&mut self, now_ms: u64) -> Vec<Action> {
        self.age(now_ms);
        let mut round = self.round(now_ms);
        self.walk(&mut round);
        for fence in round.fences.iter().rev() {
            self.lower(fence);
        }
        self.start(now_ms);
        std::mem::take(&mut self.outbox)
    }

    /// When a step is due although nothing else happens: a job's deadline is close, or it has waited to its bound.
    pub fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        self.waiting.wake_ms(now_ms)
    }

    /// Jobs that wait, who goes first first.
    pub fn in_order(&self, now_ms: u64) -> Vec<JobId> {
        let mut order = self.leads(now_ms);
        let leads: BTreeSet<_> = order.iter().copied().collect();
        let others = self.pending.difference(&leads);
        let pending = others.filter_map(|id| self.entries.get(id));
        let mut keyed: Vec<_> = pending
            .map(|entry| {
                let standing = self.usage.standing(&entry.job, &self.config);
                let key = order::key(entry, &self.config, now_ms, standing);
                (key, entry.job.id)
            })
            .collect();
        keyed.sort_unstable();
        order.extend(keyed.into_iter().map(|(_, id)| id));
        order
    }

    /// Why a job waits, as of the last step.
    pub fn wait(&self, id: JobId) -> Option<&Wait> {
        let Phase::Pending { wait } = &self.entries.get(&id)?.phase else {
            return None;
        };
        Some(self.waiting.told(id).unwrap_or(wait))
    }

    pub(super) fn round(&mut self, now_ms: u64) -> Round {
        self.rounds += 1;
        let mut round = Round::new(now_ms, self.rounds, self.moves_left(now_ms));
        round.leads.extend(self.leads(now_ms));
        round
    }

    /// Time has made others of some that wait.
    fn age(&mut self, now_ms: u64) {
        for id in self.waiting.due(now_ms) {
            if let (Some(entry), Some(asks)) = (self.entries.get(&id), self.asks.get(&id)) {
                self.waiting.leave(id);
                self.waiting.enter(entry, asks, &self.config, now_ms);
            }
        }
    }

    fn walk(&mut self, round: &mut Round) {
        let mut turns = Turns {
            standings: self.standings(),
            ..Turns::default()
        };
        self.lead(round);
        for (group, turn) in self.waiting.firsts() {
            let next = self.next(group, turn, &turns.standings, round);
            turns.nexts.extend(next);
        }
        while let Some(Reverse(next)) = turns.nexts.pop() {
            if round.closed {
                self.passed_at_the_end(next.group, round);
                continue;
            }
            let led = round.leads.contains(&next.turn.id);
            let tried = if led {
                Ok(())
            } else {
                self.admit(next.turn.id, round)
            };
            let behind = match tried {
                Ok(()) => self.waiting.behind(next.group, next.turn).next(),
                Err(wait) => self.hold_back(&next, wait, round),
            };
            match behind {
                Some((turn, _)) => {
                    let next = self.next(next.group, turn, &turns.standings, round);
                    turns.nexts.extend(next);
                }
                None => turns.passed.push((next.group, next.turn)),
            }
            if std::mem::take(&mut round.afresh) {
                for (group, turn) in std::mem::take(&mut turns.passed) {
                    let behind = self.waiting.behind(group, turn);
                    let mut behind = behind
                        .filter_map(|(turn, _)| self.next(group, turn, &turns.standings, round));
                    turns
                        .nexts
                        .extend(behind.find(|Reverse(other)| other.key > next.key));
                }
            }
        }
    }

    fn standings(&self) -> Vec<Option<Standing>> {
        let mut standings = Vec::new();
        for (group, turn) in self.waiting.firsts() {
            if let Some(entry) = self.entries.get(&turn.id) {
                standings.resize(standings.len().max(group + 1), None);
                standings[group] = Some(self.usage.standing(&entry.job, &self.config));
            }
        }
        standings
    }

    fn next(
        &self,
        group: usize,
        turn: Turn,
        standings: &[Option<Standing>],
        round: &Round,
    ) -> Option<Reverse<Next>> {
        let standing = standings.get(group).copied().flatten()?;
        let entry = self.entries.get(&turn.id)?;
        let key = order::key(entry, &self.config, round.now_ms, standing);
        Some(Reverse(Next { key, turn, group }))
    }

    /// It waits; the next of its group that has to be looked at, if any does.
    fn hold_back(&mut self, next: &Next, wait: Wait, round: &Round) -> Option<(Turn, u64)> {
        let Next { turn, group, .. } = *next;
        self.waiting.tried(turn.id, round.number);
        self.waiting.tell(group, round.number, wait.clone());
        let by_quota = matches!(
            wait,
            Wait::WaitingForQuota { .. } | Wait::ExceedsMaxQuota { .. }
        );
        self.waits(turn.id, wait);
        let alike = self.waiting.alike(group);
        if by_quota || round.closed || round.closed_for.contains_key(&alike.tenant) {
            return None;
        }
        if self.matters(group, round) {
            return self.waiting.behind(group, turn).next();
        }
        if self.full(&alike.asks, alike.gang).is_some() {
            return None;
        }
        let most_ms = round.most_ms(&alike.asks, alike.gang)?;
        let mut behind = self.waiting.behind(group, turn);
        behind.find(|(_, takes_ms)| *takes_ms <= most_ms)
    }

    /// One more of this group that does not fit changes what others may do.
    fn matters(&self, group: usize, round: &Round) -> bool {
        let alike = self.waiting.alike(group);
        let several = alike.asks.first().is_some_and(|ask| ask.gpus > 1);
        let stops = self.config.preemption && alike.haste != Haste::Early;
        let searches = stops || several && round.moves > 0;
        let keeps = alike.keeps_room(&self.config)
            && round.fences.len() < self.config.reservations_max
            && !round.never(&alike.asks, alike.gang);
        round.searches < SEARCHES_MAX && searches || keeps
    }

    /// Nothing starts any more.
    fn passed_at_the_end(&mut self, group: usize, round: &Round) {
        let Some(entry) = self
            .waiting
            .first(group)
            .and_then(|id| self.entries.get(&id))
        else {
            return;
        };
        let for_tenant = round.closed_for.get(&entry.job.tenant);
        let wait = match self.usage.obstacle(&entry.job, &self.config) {
            Some(wait) if for_tenant.is_none() => wait,
            _ => Wait::Reserved {
                head: for_tenant.copied().or(round.head).unwrap_or(entry.job.id),
            },
        };
        self.waiting.tell(group, round.number, wait);
    }

    pub(super) fn waits(&mut self, id: JobId, why: Wait) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Phase::Pending { wait } = &mut entry.phase
        {
            *wait = why;
        }
    }

    /// Reserved → running, where nobody has to stop first.
    pub(super) fn start(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.reserved) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let Phase::Reserved {
                places,
                waits_for,
                reason,
            } = &entry.phase
            else {
                continue;
            };
            if !waits_for.is_empty() {
                self.reserved.insert(id);
                continue;
            }
            entry.attempts += 1;
            entry.waited_ms += now_ms.saturating_sub(entry.since_ms);
            self.outbox.push(Action::Start {
                job: entry.job.id,
                attempt: entry.attempts,
                places: places.clone(),
                reason: reason.clone(),
            });
            entry.phase = Phase::Running {
                places: places.clone(),
                since_ms: now_ms,
                checkpoint_ms: now_ms,
                leaving: Vec::new(),
            };
            self.seated(id);
        }
    }
}
