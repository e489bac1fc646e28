use crate::load::Load;
use crate::notes::{Notes, Verdict};
use crate::p2c::PowerOfTwo;
use crate::policy::{Ask, Members, Policy};

/// More prices than this are put together with their neighbours: each tier that is too slow costs a look at two.
const TIERS_MAX: usize = 8;

/// The cheapest that is fast enough: from the cheapest price up, the better of two, until one is expected to answer in
/// time. If none is, the quickest of those looked at.
#[derive(Debug)]
pub struct Cheapest {
    /// Members by price, cheapest first.
    tiers: Vec<Vec<usize>>,
    wait_us_max: f32,
}

impl Cheapest {
    /// `costs` are the members', in their order.
    pub fn new(costs: &[u32], wait_ms_max: u64) -> Self {
        let mut members: Vec<usize> = (0..costs.len()).collect();
        members.sort_by_key(|member| costs[*member]);
        let mut prices: Vec<u32> = costs.to_vec();
        prices.sort_unstable();
        prices.dedup();
        let per_tier = prices.len().div_ceil(TIERS_MAX).max(1);
        let mut tiers: Vec<Vec<usize>> = Vec::new();
        let mut ends = prices.chunks(per_tier).filter_map(<[u32]>::last);
        let mut end = None;
        for member in members {
            if end.is_none_or(|end| costs[member] > end) {
                end = ends.next().copied();
                tiers.push(Vec::new());
            }
            if let Some(tier) = tiers.last_mut() {
                tier.push(member);
            }
        }
        Self {
            tiers,
            wait_us_max: wait_ms_max as f32 * 1000.0,
        }
    }
}

impl Policy for Cheapest {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        notes.begin("cheapest that is fast enough", "ms");
        let mut quickest: Option<(usize, f32)> = None;
        for only in &self.tiers {
            let tier = Tier { members, only };
            let Some(best) = PowerOfTwo.choose(&tier, ask, &mut Notes::default()) else {
                continue;
            };
            let member = only[best];
            // Who was never seen is tried.
            let wait_us = members.load(member).expected_us().unwrap_or(0.0);
            if wait_us <= self.wait_us_max {
                notes.add(member, wait_us / 1000.0, Verdict::Chosen);
                return Some(member);
            }
            notes.add(member, wait_us / 1000.0, Verdict::Overloaded);
            if quickest.is_none_or(|(_, least)| wait_us < least) {
                quickest = Some((member, wait_us));
            }
        }
        let (member, wait_us) = quickest?;
        notes.begin("nobody is fast enough: least expected wait", "ms");
        notes.add(member, wait_us / 1000.0, Verdict::Chosen);
        Some(member)
    }
}

/// Members of one price.
struct Tier<'a> {
    members: &'a dyn Members,
    only: &'a [usize],
}

impl Members for Tier<'_> {
    fn count(&self) -> usize {
        self.only.len()
    }

    fn usable(&self, member: usize) -> bool {
        self.members.usable(self.only[member])
    }

    fn load(&self, member: usize) -> Load {
        self.members.load(self.only[member])
    }
}

#[cfg(test)]
mod tests;
