use crate::draw::{Draw, mix};
use crate::look::mean_depth;
use crate::notes::{Notes, Verdict};
use crate::p2c::PowerOfTwo;
use crate::policy::{Ask, Members, Policy};

/// With 21 probes the fullest member has at most 5 % more sessions than the mean (Appleton, O'Reilly: multi-probe
/// consistent hashing, 2015), at one point on the ring for each.
const PROBES: usize = 21;

/// Below this many requests nobody is overloaded, whatever the mean: a session's own parallel requests stay together.
const DEPTH_FREE: f32 = 4.0;

/// The same member for every request of a session, unless it has much more than the mean to do: then the session's
/// second one, always the same too (bounded loads: Mirrokni, Thorup, Zadimoghaddam 2016). Who joins or leaves moves
/// only its own share of the sessions. Without a session, two choices.
#[derive(Debug)]
pub struct Affinity {
    /// Points on the ring, each with its member.
    ring: Vec<(u64, usize)>,
    load_max: f32,
}

impl Affinity {
    /// `names` are the members', in their order; equal in every gateway, so that all send a session to the same one.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>, load_percent_max: u32) -> Self {
        let point = |(member, name): (usize, &str)| (session_of(name.as_bytes()), member);
        let mut ring: Vec<(u64, usize)> = names.enumerate().map(point).collect();
        ring.sort_unstable();
        Self {
            ring,
            load_max: load_percent_max as f32 / 100.0,
        }
    }

    /// Distances from a session's probes to the next points, nearest first, and whose points they are.
    fn probe(&self, session: u64) -> [(u64, usize); PROBES] {
        let mut draw = Draw::new(session);
        let mut near = [(0, 0); PROBES];
        for slot in &mut near {
            let probe = draw.word();
            let next = self.ring.partition_point(|(point, _)| *point < probe);
            let (point, _) = self.ring[next % self.ring.len()];
            *slot = (point.wrapping_sub(probe), next % self.ring.len());
        }
        near.sort_unstable();
        near
    }
}

/// A number for whatever names a session (FNV-1a, mixed): the same in every process and version.
pub fn session_of(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix(hash)
}

impl Policy for Affinity {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        let Some(session) = ask.session else {
            return PowerOfTwo.choose(members, ask, notes);
        };
        if self.ring.is_empty() {
            return None;
        }
        notes.begin("the session's own", "requests");
        let mean = mean_depth(members, &mut Draw::new(ask.turn));
        let depth_max = (self.load_max * (mean + 1.0)).ceil().max(DEPTH_FREE);
        let mut least: Option<(f32, usize)> = None;
        let mut last = None;
        for (_, place) in self.probe(session) {
            let (_, member) = self.ring[place];
            if last == Some(member) {
                continue;
            }
            last = Some(member);
            if !members.usable(member) {
                notes.add(member, 0.0, Verdict::Unusable);
                continue;
            }
            let depth = members.load(member).depth();
            if depth < depth_max {
                notes.add(member, depth, Verdict::Chosen);
                return Some(member);
            }
            notes.add(member, depth, Verdict::Overloaded);
            if least.is_none_or(|(least, _)| depth < least) {
                least = Some((depth, member));
            }
        }
        // Everybody near is overloaded or down: the pool as a whole is.
        let Some((depth, member)) = least else {
            return PowerOfTwo.choose(members, ask, notes);
        };
        notes.begin(
            "all of the session's are above their share: the least loaded",
            "requests",
        );
        notes.add(member, depth, Verdict::Chosen);
        Some(member)
    }
}

#[cfg(test)]
mod tests;
