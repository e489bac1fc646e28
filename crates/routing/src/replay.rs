//! A policy tried on recorded prompts: servers with caches of a given size, and what each of them had to compute.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::load::Load;
use crate::notes::Notes;
use crate::policy::{Ask, Members, Policy};
use crate::prefix::Digest;

/// One recorded prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub at_ms: u32,
    /// Its blocks; equal numbers stand for equal beginnings up to there.
    pub blocks: Vec<u64>,
}

/// Reads Mooncake's traces: a JSON object a line with `timestamp` in milliseconds and `hash_ids`, one for each 512 tokens.
pub fn read_mooncake(text: &str) -> Result<Vec<Prompt>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Line {
        timestamp: u32,
        hash_ids: Vec<u64>,
    }
    let read = |line: &str| {
        let line: Line = serde_json::from_str(line)?;
        Ok(Prompt {
            at_ms: line.timestamp,
            blocks: line.hash_ids,
        })
    };
    text.lines().map(read).collect()
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Share of all blocks that were in the cache of the server that got them.
    pub hit_rate: f64,
    /// The busiest server over the mean: requests, and blocks computed.
    pub requests_peak: f64,
    pub computed_peak: f64,
}

/// Who decides in a replay.
#[derive(Debug)]
pub enum Router<'a> {
    Policy(&'a dyn Policy),
    /// Looks into all caches: the longest match, of equal ones whoever computed least.
    Oracle,
}

/// Sends every prompt to one of `servers` with room for `cache_blocks` each.
pub fn replay(
    prompts: &[Prompt],
    servers: usize,
    cache_blocks: usize,
    router: &Router<'_>,
) -> Outcome {
    let mut farm = Farm {
        caches: (0..servers).map(|_| Cache::new(cache_blocks)).collect(),
        requests: vec![0; servers],
        computed: vec![0; servers],
    };
    let (mut hits, mut blocks) = (0, 0);
    for (prompt, turn) in prompts.iter().zip(0..) {
        let server = match router {
            Router::Oracle => farm.oracle(&prompt.blocks),
            Router::Policy(policy) => {
                let digest = Digest::of_blocks(0, prompt.blocks.iter().copied());
                let ask = Ask {
                    turn,
                    prompt: Some(&digest),
                    now_ms: prompt.at_ms,
                    ..Ask::default()
                };
                let chosen = policy.choose(&farm, &ask, &mut Notes::default());
                chosen.unwrap_or_default()
            }
        };
        let known = farm.caches[server].take(&prompt.blocks);
        hits += known;
        blocks += prompt.blocks.len();
        farm.requests[server] += 1;
        farm.computed[server] += prompt.blocks.len() - known;
    }
    Outcome {
        hit_rate: hits as f64 / blocks.max(1) as f64,
        requests_peak: peak(&farm.requests),
        computed_peak: peak(&farm.computed),
    }
}

fn peak(counts: &[usize]) -> f64 {
    let sum: usize = counts.iter().sum();
    let most = counts.iter().max().copied().unwrap_or_default();
    most as f64 * counts.len() as f64 / sum.max(1) as f64
}

struct Farm {
    caches: Vec<Cache>,
    requests: Vec<usize>,
    computed: Vec<usize>,
}

impl Farm {
    fn oracle(&self, blocks: &[u64]) -> usize {
        let best = |server: &usize| {
            let known = self.caches[*server].known(blocks);
            (known, std::cmp::Reverse(self.computed[*server]))
        };
        (0..self.caches.len()).max_by_key(best).unwrap_or_default()
    }
}

impl Members for Farm {
    fn count(&self) -> usize {
        self.caches.len()
    }

    fn usable(&self, _: usize) -> bool {
        true
    }

    /// Everything is done at once: only what was given lately tells servers apart.
    fn load(&self, _: usize) -> Load {
        Load::default()
    }
}

/// Forgets the block that was used longest ago, of one prompt the last ones first.
#[derive(Debug)]
struct Cache {
    room: usize,
    used: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    clock: u64,
}

impl Cache {
    fn new(room: usize) -> Self {
        Self {
            room,
            used: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
        }
    }

    fn known(&self, blocks: &[u64]) -> usize {
        let known = blocks
            .iter()
            .take_while(|block| self.used.contains_key(block));
        known.count()
    }

    /// How many blocks were known; afterwards all are, as far as there is room.
    fn take(&mut self, blocks: &[u64]) -> usize {
        let known = self.known(blocks);
        for block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.used.insert(*block, self.clock) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.clock, *block);
        }
        while self.used.len() > self.room {
            let Some((_, block)) = self.by_use.pop_first() else {
                break;
            };
            self.used.remove(&block);
        }
        known
    }
}
