//! Among the targets of one claim: colour, weight, region, then the policy.

use std::sync::Arc;

use routing::{Ask, Load, Members, Notes, Policy as _, PowerOfTwo};

use super::decision::Decision;
use super::{Local, Now, RequestFacts};
use crate::snapshot::{Branch, Cell, Group, Target, To};
use crate::upstream::Upstream;

/// Who answers, what the model is called there, and how it came about.
pub(super) struct Choice {
    pub(super) target: Target,
    pub(super) model: Option<Arc<str>>,
    pub(super) decision: Decision,
}

/// One request before one group.
pub(super) struct Choosing<'a, N> {
    pub(super) group: &'a Group,
    pub(super) facts: &'a RequestFacts<'a>,
    pub(super) now: &'a N,
    /// Whether upstreams in trouble are passed over.
    pub(super) sound_only: bool,
}

impl<N: Now> Choosing<'_, N> {
    /// A target by weight among those that can answer, else the fallback chain. Upstreams without a colour answer for
    /// a colour that nobody has, unless the route is strict.
    pub(super) fn choose(&self) -> Option<Choice> {
        let rules = &self.group.plan.rules;
        let wanted = rules.colour.as_ref();
        let wanted = wanted.and_then(|name| self.facts.hints.header(name));
        let Some(colour) = wanted else {
            return self.of_colour(None);
        };
        let mut chosen = self.of_colour(Some(colour));
        let mut instead = false;
        if chosen.is_none() && !rules.colour_strict {
            chosen = self.of_colour(None);
            instead = true;
        }
        let mut chosen = chosen?;
        let shown = String::from_utf8_lossy(colour).into_owned();
        chosen.decision.colour = Some((shown, instead));
        Some(chosen)
    }

    fn of_colour(&self, colour: Option<&[u8]>) -> Option<Choice> {
        let plan = &self.group.plan;
        let longer = self.facts.longer;
        let shared = match plan.branches.as_slice() {
            _ if longer => None,
            [only] if only.weight > 0 => self.member(only, colour),
            branches => self.shared(branches, colour),
        };
        shared.or_else(|| {
            let mut chain = plan.fallback.iter().zip(1..);
            chain.find_map(|(branch, step)| {
                let serves = branch.serves;
                if !(if longer { serves.longer } else { serves.any }) {
                    return None;
                }
                let mut choice = self.member(branch, colour)?;
                choice.decision.fallback = Some(step);
                choice.decision.longer = longer;
                Some(choice)
            })
        })
    }

    /// Whose turn it is among the branches that can answer.
    fn shared(&self, branches: &[Branch], colour: Option<&[u8]>) -> Option<Choice> {
        let turn = self.now.turn(&self.group.turns);
        let mut alive = 0_u64;
        for (index, branch) in branches.iter().enumerate() {
            if branch.weight > 0 && self.any(branch, colour, turn) {
                alive |= 1 << index;
            }
        }
        let weights = branches.iter().enumerate();
        let weights = weights.map(|(index, branch)| {
            let answers = alive >> index & 1 == 1;
            if answers { branch.weight } else { 0 }
        });
        let branch = branches.get(routing::share(turn, weights)?)?;
        let mut choice = self.member(branch, colour)?;
        choice.decision.turn = Some((Arc::clone(&branch.name), branches.len()));
        Some(choice)
    }

    /// Whether a branch has anybody for this request.
    fn any(&self, branch: &Branch, colour: Option<&[u8]>, turn: u64) -> bool {
        let To::Pool(pool) = &branch.to else {
            return self.local(colour);
        };
        pool.cells(colour, self.region())
            .into_iter()
            .flatten()
            .any(|cell| {
                let count = cell.members.len();
                // From another place each time, for those in front may all be down.
                let start = usize::try_from(turn % count.max(1) as u64).unwrap_or(0);
                (start..count)
                    .chain(0..start)
                    .any(|member| self.usable(&cell.members[member]))
            })
    }

    fn local(&self, colour: Option<&[u8]>) -> bool {
        colour.is_none() && self.facts.local == Local::Ready
    }

    fn usable(&self, upstream: &Arc<Upstream>) -> bool {
        let tried = &self.facts.tried;
        upstream.speaks(self.facts.wire)
            && !tried.iter().any(|tried| Arc::ptr_eq(tried, upstream))
            && self.now.ready(upstream)
            && (!self.sound_only || self.now.sound(upstream))
    }

    fn member(&self, branch: &Branch, colour: Option<&[u8]>) -> Option<Choice> {
        let mut decision = Decision::default();
        let target = match &branch.to {
            To::Local => self.local(colour).then_some(Target::Local)?,
            To::Pool(pool) => {
                let [home, away] = pool.cells(colour, self.region());
                let upstream = self.near(home, away, &mut decision)?;
                Target::Upstream(Arc::clone(upstream))
            }
        };
        decision.chosen = match &target {
            Target::Local => Arc::clone(&branch.name),
            Target::Upstream(upstream) => Arc::clone(&upstream.name),
        };
        Some(Choice {
            target,
            model: branch.model.clone(),
            decision,
        })
    }

    /// Where the request says that it belongs.
    fn region(&self) -> Option<&[u8]> {
        let header = self.group.plan.rules.region.as_ref()?;
        self.facts.hints.header(header)
    }

    /// Somebody of the request's or else the node's own region, until the best there is as deep in work as the route allows and somebody
    /// elsewhere has less.
    fn near<'c>(
        &self,
        home: Option<&'c Cell>,
        away: Option<&'c Cell>,
        decision: &mut Decision,
    ) -> Option<&'c Arc<Upstream>> {
        let (Some(home), Some(away)) = (home, away) else {
            return self.among(home.or(away)?, decision);
        };
        let Some(near) = self.among(home, decision) else {
            return self.among(away, decision);
        };
        let spill = self.group.plan.rules.spill_depth;
        let mut depth = self.now.load(near).depth();
        if depth < spill {
            return Some(near);
        }
        // A policy that goes by more than load may have named a busy one in an idle region.
        let mut notes = Notes::default();
        let ask = Ask {
            turn: self.now.turn(&home.turns),
            ..Ask::default()
        };
        if let Some(other) = PowerOfTwo.choose(&self.seen(home), &ask, &mut notes) {
            depth = depth.min(self.now.load(&home.members[other]).depth());
        }
        if depth < spill {
            return Some(near);
        }
        let mut elsewhere = Decision::default();
        match self.among(away, &mut elsewhere) {
            Some(far) if self.now.load(far).depth() < depth => {
                *decision = elsewhere;
                decision.spilled = Some(depth);
                Some(far)
            }
            _ => Some(near),
        }
    }

    fn among<'c>(&self, cell: &'c Cell, decision: &mut Decision) -> Option<&'c Arc<Upstream>> {
        if let [only] = cell.members.as_slice() {
            return self.usable(only).then_some(only);
        }
        let hints = self.facts.hints;
        let ask = Ask {
            turn: self.now.turn(&cell.turns),
            session: hints.session,
            prompt: hints.prompt.as_deref(),
            now_ms: self.now.now_ms(),
        };
        let mut notes = Notes::default();
        let chosen = cell.policy.choose(&self.seen(cell), &ask, &mut notes)?;
        decision.note(cell, &notes);
        cell.members.get(chosen)
    }

    fn seen<'c>(&'c self, cell: &'c Cell) -> Seen<'c, N> {
        Seen {
            choosing: self,
            members: &cell.members,
        }
    }
}

/// A cell as a policy sees it.
struct Seen<'a, N> {
    choosing: &'a Choosing<'a, N>,
    members: &'a [Arc<Upstream>],
}

impl<N: Now> Members for Seen<'_, N> {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn usable(&self, member: usize) -> bool {
        self.choosing.usable(&self.members[member])
    }

    fn load(&self, member: usize) -> Load {
        self.choosing.now.load(&self.members[member])
    }
}
