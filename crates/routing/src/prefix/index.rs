use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Digest;

/// A bucket is a cache line: a look at it is one access to memory.
const SLOTS: usize = 8;
const BUCKET_BYTES: usize = SLOTS * size_of::<AtomicU64>();

const TAG_BITS: u32 = 28;
const MEMBER_BITS: u32 = 20;
const STAMP_BITS: u32 = 16;

/// Members that know a beginning, at most as many are found.
const FOUND_MAX: usize = 6;

/// Who computed which beginnings of prompts. A table of fixed size without locks: what finds its bucket full takes the
/// place of what was used longest ago there, and two writers of one slot leave either's word, which at worst sends a
/// prompt where it is not known.
pub struct Index {
    buckets: Box<[[AtomicU64; SLOTS]]>,
    /// Insertions so far; some of its upper bits are a slot's stamp.
    inserted: AtomicU64,
    /// How many insertions make one step of a stamp: 64 steps are as many as there are slots.
    stamp_shift: u32,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Index {
    /// In at most so many bytes, but at least one bucket.
    pub fn new(bytes_max: usize) -> Self {
        let wanted = (bytes_max / BUCKET_BYTES).max(1);
        let count = 1 << wanted.ilog2();
        let empty = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            buckets: std::iter::repeat_with(empty).take(count).collect(),
            inserted: AtomicU64::new(0),
            stamp_shift: (count * SLOTS).ilog2().saturating_sub(6),
        }
    }

    pub fn bytes(&self) -> usize {
        self.buckets.len() * BUCKET_BYTES
    }

    /// Calls back for members that know a beginning of the prompt, with its blocks; longest first, each once.
    pub(super) fn find(&self, digest: &Digest, mut each: impl FnMut(u32, u32)) {
        let mut found = [0_u32; FOUND_MAX];
        let mut count = 0;
        let mut at = self.longest(digest);
        let mut step = 1;
        while let Some((hash, blocks)) = at.checked_sub(1).and_then(|at| digest.beginnings.get(at))
        {
            for slot in self.bucket(*hash) {
                let slot = slot.load(Ordering::Relaxed);
                let member = member_of(slot);
                if slot == 0 || tag_of(slot) != tag(*hash) || found[..count].contains(&member) {
                    continue;
                }
                each(member, *blocks);
                found[count] = member;
                count += 1;
                if count == FOUND_MAX {
                    return;
                }
            }
            // Who knows less is looked for in ever larger steps back.
            at = at.saturating_sub(step);
            step *= 2;
        }
    }

    /// How many of the prompt's beginnings somebody knows. Who knows one knows all before it, give or take what was
    /// overwritten, so halving finds the last.
    fn longest(&self, digest: &Digest) -> usize {
        digest.beginnings.partition_point(|(hash, _)| {
            let tag = tag(*hash);
            let known = |slot: &AtomicU64| {
                let slot = slot.load(Ordering::Relaxed);
                slot != 0 && tag_of(slot) == tag
            };
            self.bucket(*hash).iter().any(known)
        })
    }

    /// The member knows all of the prompt from now on.
    pub(super) fn insert(&self, digest: &Digest, member: u32) {
        let count = digest.beginnings.len() as u64;
        let inserted = self.inserted.fetch_add(count, Ordering::Relaxed);
        let stamp = inserted >> self.stamp_shift & low(STAMP_BITS);
        for (hash, _) in &digest.beginnings {
            let own = tag(*hash) << (MEMBER_BITS + STAMP_BITS)
                | (u64::from(member) & low(MEMBER_BITS)) << STAMP_BITS;
            let bucket = self.bucket(*hash);
            let mut oldest = (0, 0);
            for (place, slot) in bucket.iter().enumerate() {
                let slot = slot.load(Ordering::Relaxed);
                if slot == 0 || slot >> STAMP_BITS == own >> STAMP_BITS {
                    oldest = (u64::MAX, place);
                    break;
                }
                let age = stamp.wrapping_sub(slot) & low(STAMP_BITS);
                if age >= oldest.0 {
                    oldest = (age, place);
                }
            }
            bucket[oldest.1].store(own | stamp, Ordering::Relaxed);
        }
    }

    fn bucket(&self, hash: u64) -> &[AtomicU64; SLOTS] {
        // The count is a power of two.
        let place = usize::try_from(hash & (self.buckets.len() as u64 - 1)).unwrap_or(0);
        &self.buckets[place]
    }
}

const fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// From the upper bits, which have no part in finding the bucket; never 0, so that no slot in use is.
fn tag(hash: u64) -> u64 {
    (hash >> (u64::BITS - TAG_BITS)).max(1)
}

fn tag_of(slot: u64) -> u64 {
    slot >> (MEMBER_BITS + STAMP_BITS)
}

fn member_of(slot: u64) -> u32 {
    u32::try_from(slot >> STAMP_BITS & low(MEMBER_BITS)).unwrap_or(0)
}
