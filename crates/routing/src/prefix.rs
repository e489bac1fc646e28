//! Where a prompt's beginning was computed before, and whether to go there.

mod digest;
mod index;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use digest::Digest;
pub use index::Index;

use crate::draw::Draw;
use crate::look::mean_depth;
use crate::notes::{Notes, Verdict};
use crate::p2c::PowerOfTwo;
use crate::policy::{Ask, Members, Policy, sample};

/// Members that are drawn beside those that know the prompt.
const DRAWN: usize = 4;

/// As many times its share may a member have, of requests now and of work lately, before the prompt goes elsewhere.
const SHARE_MAX: f32 = 1.15;

/// What a full share of load counts against a prompt that is not known at all: a member that knows the whole prompt is
/// preferred to an idle one, one that knows a tenth of it is not.
const LOAD_WEIGHT: f32 = 0.3;

/// Requests that are no load worth balancing.
const DEPTH_FREE: f32 = 2.0;

/// Nor is work lately of so many blocks, and of so many times the prompt: one conversation stays where it is, however
/// idle the others are.
const WORK_FREE: f32 = 192.0;
const PROMPTS_FREE: f32 = 4.0;

/// In which work done is forgotten by 63 %.
const WORK_DECAY_MS: f32 = 120_000.0;

/// What any request costs beside its unknown blocks, in blocks: its answer is computed token by token.
const REQUEST_BLOCKS: f32 = 8.0;

/// Prefers who computed the prompt's beginning before, as long as it has no more than its share of requests and work.
///
/// What members know is guessed from what they were sent: nobody has to tell, and what a server forgot is found out by
/// its being older than what the index keeps.
pub struct Prefix {
    index: Arc<Index>,
    /// The members' ids in the index, in the members' order.
    ids: Vec<u32>,
    /// The same, to find a member by its id.
    by_id: Vec<(u32, usize)>,
    /// Work given to each lately, in blocks.
    work: Vec<Recent>,
    all_work: Recent,
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefix")
            .field("members", &self.ids.len())
            .finish_non_exhaustive()
    }
}

impl Prefix {
    /// `ids` tell the members apart among all that share the index, and stay theirs.
    pub fn new(index: Arc<Index>, ids: Vec<u32>) -> Self {
        let mut by_id: Vec<(u32, usize)> = ids.iter().copied().zip(0..).collect();
        by_id.sort_unstable();
        Self {
            index,
            by_id,
            work: ids.iter().map(|_| Recent::default()).collect(),
            ids,
            all_work: Recent::default(),
        }
    }

    fn member(&self, id: u32) -> Option<usize> {
        let place = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.by_id[place].1)
    }

    /// Its share of requests now or of work lately, whichever is more; 1 is the mean.
    fn share(&self, member: usize, depth: f32, mean: &Mean) -> f32 {
        let work = self.work[member].read(mean.now_ms);
        let free = WORK_FREE + PROMPTS_FREE * mean.blocks;
        let of_work = (work - free).max(0.0) / mean.work.max(1.0);
        let of_depth = (depth - DEPTH_FREE).max(0.0) / (mean.depth + 1.0);
        of_work.max(of_depth)
    }
}

/// Of the pool, and what it is compared for.
struct Mean {
    depth: f32,
    work: f32,
    /// The prompt's.
    blocks: f32,
    now_ms: u32,
}

impl Policy for Prefix {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        let Some(digest) = ask.prompt else {
            return PowerOfTwo.choose(members, ask, notes);
        };
        notes.begin("prompt known and load", "");
        let mut draw = Draw::new(ask.turn);
        let blocks = digest.blocks().max(1) as f32;
        let mean = Mean {
            blocks,
            depth: mean_depth(members, &mut draw),
            work: self.all_work.read(ask.now_ms) / self.ids.len().max(1) as f32,
            now_ms: ask.now_ms,
        };
        let mut best: Option<Candidate> = None;
        let mut consider = |member: usize, known: u32| {
            let share = self.share(member, members.load(member).depth(), &mean);
            let candidate = Candidate {
                member,
                known,
                share,
                score: 1.0 - known as f32 / blocks + LOAD_WEIGHT * share,
            };
            let other = match best {
                Some(best) if !candidate.beats(&best) => candidate,
                _ => match best.replace(candidate) {
                    Some(beaten) => beaten,
                    None => return,
                },
            };
            let verdict = if other.share > SHARE_MAX {
                Verdict::Overloaded
            } else {
                Verdict::Worse
            };
            notes.add(other.member, other.score, verdict);
        };
        self.index.find(digest, |id, known| {
            if let Some(member) = self.member(id).filter(|member| members.usable(*member)) {
                consider(member, known);
            }
        });
        for _ in 0..DRAWN {
            if let Some(member) = sample(members, &mut draw, None) {
                consider(member, 0);
            }
        }
        let best = best?;
        notes.add(best.member, best.score, Verdict::Chosen);
        self.sent(best, digest, ask.now_ms);
        Some(best.member)
    }
}

impl Prefix {
    /// The chosen one knows the prompt from now on, and has its work.
    fn sent(&self, to: Candidate, digest: &Digest, now_ms: u32) {
        let unknown = digest.blocks().saturating_sub(to.known);
        let work = unknown as f32 + REQUEST_BLOCKS;
        self.work[to.member].add(work, now_ms);
        self.all_work.add(work, now_ms);
        self.index.insert(digest, self.ids[to.member]);
    }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    member: usize,
    /// Blocks of the prompt that it knows.
    known: u32,
    share: f32,
    score: f32,
}

impl Candidate {
    /// Whoever has its share already yields to all who have not, and among such ones the least loaded takes it.
    fn beats(&self, other: &Self) -> bool {
        match (self.share <= SHARE_MAX, other.share <= SHARE_MAX) {
            (true, true) => self.score < other.score,
            (false, false) => self.share < other.share,
            (fits, _) => fits,
        }
    }
}

/// A sum that is forgotten exponentially: its value as an `f32`, then the moment of the last change.
#[derive(Debug, Default)]
struct Recent(AtomicU64);

impl Recent {
    fn read(&self, now_ms: u32) -> f32 {
        kept(self.0.load(Ordering::Relaxed), now_ms)
    }

    fn add(&self, amount: f32, now_ms: u32) {
        let added = |packed| {
            let sum = kept(packed, now_ms) + amount;
            Some(u64::from(sum.to_bits()) << 32 | u64::from(now_ms))
        };
        let changed = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        debug_assert!(changed.is_ok(), "it always has a new value");
    }
}

fn kept(packed: u64, now_ms: u32) -> f32 {
    let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    let age_ms = now_ms.wrapping_sub(half(packed));
    f32::from_bits(half(packed >> 32)) * (-(age_ms as f32) / WORK_DECAY_MS).exp()
}

#[cfg(test)]
mod tests;
