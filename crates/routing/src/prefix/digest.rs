use crate::draw::mix;

/// Bytes of text in a block: about 64 tokens, which is four of vLLM's blocks.
const BLOCK_BYTES: usize = 256;

/// Of a longer prompt the beginning stands for the whole: a quarter of a million tokens, hashed in a fraction of a
/// millisecond.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Up to this many blocks, each is remembered; from there on every sixteenth of a doubling, so that what is remembered
/// of a prompt grows with the logarithm of its length, and what is known of it is at most a seventeenth short.
const DENSE: u32 = 32;

/// Hashes of a prompt's beginnings: equal beginnings of two prompts have equal hashes, and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Hash of the first so many blocks.
    pub(super) beginnings: Vec<(u64, u32)>,
    blocks: u32,
}

impl Digest {
    /// Of a text that comes after `context`, as written: model, tools, and whatever else makes equal texts unequal.
    pub fn of_text(context: &[&[u8]], text: &[u8]) -> Self {
        let seed = context.iter().fold(0, |seed, part| hash(mix(seed), part));
        let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        let blocks = text.chunks_exact(BLOCK_BYTES);
        Self::chained(seed, blocks.map(|block| hash(0, block)))
    }

    /// Of blocks that somebody else told apart: an engine's token blocks, or a trace's.
    pub fn of_blocks(seed: u64, blocks: impl Iterator<Item = u64>) -> Self {
        Self::chained(seed, blocks.map(mix))
    }

    fn chained(seed: u64, hashes: impl Iterator<Item = u64>) -> Self {
        let mut beginnings = Vec::new();
        let mut chain = mix(seed);
        let mut count = 0_u32;
        for block in hashes {
            chain = fold(chain ^ block, 0xA076_1D64_78BD_642F);
            count += 1;
            if remembered(count) {
                beginnings.push((mix(chain), count));
            }
        }
        // The whole, wherever it ends: it may come again.
        if count > 0 && !remembered(count) {
            beginnings.push((mix(chain), count));
        }
        Self {
            beginnings,
            blocks: count,
        }
    }

    /// Whole blocks of the prompt.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }
}

fn remembered(count: u32) -> bool {
    count <= DENSE || {
        let step = (count.next_power_of_two() / DENSE).max(1);
        count.is_multiple_of(step)
    }
}

/// Eight bytes at a time by folded multiplication, as wyhash does it. Nobody gains by a collision: it sends a prompt
/// to a server that does not know it.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word), 0xE703_7ED1_A0B4_28DB);
    }
    for byte in rest {
        hash = fold(hash ^ u64::from(*byte), 0x8EBC_6AF0_9C88_C6E3);
    }
    hash
}

fn fold(left: u64, right: u64) -> u64 {
    let wide = u128::from(left) * u128::from(right);
    let half = |wide: u128| u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0);
    half(wide) ^ half(wide >> 64)
}
