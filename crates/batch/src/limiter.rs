//! Triton's rate limiter: named resources that running batches of all models share.

use std::collections::BTreeMap;

/// What one call of a model holds while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Amounts by name.
    pub resources: BTreeMap<String, u32>,
    /// A model of priority 2 gets half the turns of one of priority 1.
    pub priority: u32,
}

/// Who takes part; a number given by [`Limiter::join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(u64);

#[derive(Debug, Default)]
pub struct Limiter {
    /// What there is of some resources.
    given: BTreeMap<String, u32>,
    /// In use, by name.
    used: BTreeMap<String, u32>,
    members: BTreeMap<Member, Part>,
    next: u64,
}

#[derive(Debug)]
struct Part {
    share: Share,
    /// Batches run, times the priority: the lowest goes first.
    turns: u64,
    waits: bool,
}

/// A member asks for more than there is, so it would never run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMuch {
    pub resource: String,
    pub wanted: u32,
    pub given: u32,
}

impl Limiter {
    /// There is as much of each resource as is given here, or else as the most demanding member needs, as in Triton.
    pub fn new(given: BTreeMap<String, u32>) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// Takes part from now on.
    pub fn join(&mut self, share: Share) -> Result<Member, TooMuch> {
        for (resource, wanted) in &share.resources {
            if let Some(given) = self.given.get(resource).filter(|given| *given < wanted) {
                return Err(TooMuch {
                    resource: resource.clone(),
                    wanted: *wanted,
                    given: *given,
                });
            }
        }
        let member = Member(self.next);
        self.next += 1;
        // Whoever comes late does not make up for turns that it never wanted.
        let turns = self.members.values().map(|part| part.turns).min();
        let part = Part {
            share,
            turns: turns.unwrap_or_default(),
            waits: false,
        };
        self.members.insert(member, part);
        Ok(member)
    }

    pub fn leave(&mut self, member: Member) {
        self.members.remove(&member);
    }

    fn total(&self, name: &str) -> u32 {
        if let Some(given) = self.given.get(name) {
            return *given;
        }
        let needs = self.members.values().map(|part| &part.share.resources);
        needs
            .filter_map(|resources| resources.get(name).copied())
            .max()
            .unwrap_or(0)
    }

    fn fits(&self, share: &Share) -> bool {
        share.resources.iter().all(|(name, amount)| {
            let used = self.used.get(name).copied().unwrap_or(0);
            used.saturating_add(*amount) <= self.total(name)
        })
    }

    /// Whether a batch may start; then it holds its share. If not, the member is named by a later [`Self::give_back`].
    pub fn take(&mut self, member: Member) -> bool {
        let Some(part) = self.members.get(&member) else {
            return true;
        };
        let fits = self.fits(&part.share);
        // Somebody who waits for the same and has had fewer turns goes first.
        let behind = self.members.iter().any(|(other, waiting)| {
            *other != member
                && waiting.waits
                && waiting.turns < part.turns
                && self.fits(&waiting.share)
                && overlaps(&waiting.share, &part.share)
        });
        let share = part.share.clone();
        let granted = fits && !behind;
        if granted {
            for (name, amount) in &share.resources {
                *self.used.entry(name.clone()).or_default() += amount;
            }
        }
        if let Some(part) = self.members.get_mut(&member) {
            part.waits = !granted;
            if granted {
                part.turns += u64::from(share.priority.max(1));
            }
        }
        granted
    }

    /// A batch that was granted its share has ended: who waits and may try now, those with the fewest turns first.
    /// `more`: the member has another batch to run, and stands in line for it with the others.
    pub fn give_back(&mut self, (member, share): (Member, &Share), more: bool) -> Vec<Member> {
        if let Some(part) = self.members.get_mut(&member) {
            part.waits = more;
        }
        for (name, amount) in &share.resources {
            if let Some(used) = self.used.get_mut(name) {
                *used = used.saturating_sub(*amount);
            }
        }
        self.waiting()
    }

    /// Wants nothing any more; others need not stand back for it.
    pub fn rest(&mut self, member: Member) -> Vec<Member> {
        match self.members.get_mut(&member) {
            Some(part) if part.waits => part.waits = false,
            _ => return Vec::new(),
        }
        self.waiting()
    }

    fn waiting(&self) -> Vec<Member> {
        let mut waiting: Vec<(u64, Member)> = self
            .members
            .iter()
            .filter(|(_, part)| part.waits)
            .map(|(member, part)| (part.turns, *member))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, member)| member).collect()
    }
}

fn overlaps(left: &Share, right: &Share) -> bool {
    left.resources
        .keys()
        .any(|name| right.resources.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str, amount: u32, priority: u32) -> Share {
        Share {
            resources: BTreeMap::from([(name.to_owned(), amount)]),
            priority,
        }
    }

    #[test]
    fn a_resource_is_never_given_out_twice() {
        let mut limiter = Limiter::default();
        let one = share("memory", 1, 1);
        let small = limiter.join(one.clone()).expect("enough");
        let large = limiter.join(share("memory", 3, 1)).expect("enough");
        let other = limiter.join(share("disk", 1, 1)).expect("enough");
        assert!(limiter.take(small) && limiter.take(small) && limiter.take(small));
        assert!(!limiter.take(small), "three is all there is");
        assert!(!limiter.take(large));
        assert!(limiter.take(other), "another resource");
        for _ in 0..2 {
            limiter.give_back((small, &one), false);
        }
        assert!(!limiter.take(large), "one is still out");
        assert_eq!(limiter.give_back((small, &one), false)[0], large);
        assert!(limiter.take(large));
    }

    #[test]
    fn what_the_operator_gives_is_all_there_is() {
        let mut limiter = Limiter::new(BTreeMap::from([("memory".to_owned(), 2)]));
        let member = limiter.join(share("memory", 1, 1)).expect("enough");
        assert!(limiter.take(member) && limiter.take(member) && !limiter.take(member));
        let refused = limiter.join(share("memory", 3, 1)).expect_err("too much");
        assert_eq!((refused.wanted, refused.given), (3, 2));
    }

    #[test]
    fn priority_shares_out_the_turns() {
        let mut limiter = Limiter::default();
        let one = share("r", 1, 1);
        let members = [
            limiter.join(one.clone()).expect("enough"),
            limiter.join(share("r", 1, 2)).expect("enough"),
        ];
        let mut turns = [0_u32; 2];
        let mut waiting = members.to_vec();
        for _ in 0..300 {
            let mut granted = None;
            for member in waiting {
                if limiter.take(member) {
                    assert_eq!(granted, None, "one at a time");
                    granted = Some(member);
                }
            }
            let granted = granted.expect("somebody runs");
            turns[usize::from(granted == members[1])] += 1;
            waiting = limiter.give_back((granted, &one), true);
        }
        assert_eq!(turns, [200, 100]);
    }
}
